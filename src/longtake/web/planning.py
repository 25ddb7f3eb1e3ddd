"""What a request comes to, before it is made: checked by the engine itself, as a dry run checks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import ValidationError

from longtake.errors import InputError, LongtakeError, ModelError, StoryboardError
from longtake.web.refusal import Refusal, scrubbed, sentence
from longtake.web.schema import Wanted, ending, named, placed
from longtake.web.settings import Settings

if TYPE_CHECKING:
    from longtake.backbones.lora import Lora
    from longtake.pipeline import Config

__all__ = ["Checked", "check", "plan_of", "priced", "ranges"]

REFUSED = {"model", "parts", "loras", "image", "video", "storyboard", "prompt"}  # in `longtake`: said elsewhere
WORDS = {  # of an error, and the field that it is about
    "size": ("height of", "width of"),
    "order": ("order",),
    "schedule": ("schedule", "expected f<n>"),
    "seconds": (" seconds", "video ends"),
    "model": ("model",),
}


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that can be served."""

    fields: dict[str, Any]  # of Request or Extension; images and videos are uploads' ids
    plan: dict[str, Any]
    model: str
    seconds: float
    steps: int
    sections: tuple[int, ...]  # their places in time, in the order of making

    @property
    def size(self) -> str:
        """Width and height of the file."""
        return f"{self.plan['width']}x{self.plan['height']}"

    @property
    def kin(self) -> str:
        """What makes steps take as long."""
        return f"{self.model} {self.size}"


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as half-open ranges.

    >>> ranges({0, 1, 2, 7, 9, 8})
    [[0, 3], [7, 10]]
    """
    out = list[list[int]]()
    for number in sorted(numbers):
        if out and out[-1][1] == number:
            out[-1][1] += 1
        else:
            out.append([number, number + 1])
    return out


def plan_of(config: Config, told: Iterable[str] = (), estimate: float | None = None) -> dict[str, Any]:
    """The plan of a config as JSON says it. `told` says what snapped where, `estimate` how many seconds it will take.

    Raises:
        ModelError: the model of the config is not here.
    """
    from longtake.backbones import inspect_model

    plan, ratio = config.plan(), inspect_model(config.model, config.parts).spatial_ratio
    first = config.made_images.start if config.source else 1
    height, width = config.height // ratio, config.width // ratio
    sections = []
    for section in plan.sections:
        place = plan.place_of(section)
        images = config.images_at(place)
        sections.append(
            {
                "index": section.index,
                "place": place,
                "frames": [section.frames[0], section.frames[-1] + 1],
                "images": [images.start, images.stop],
                "start": images.start / config.fps,
                "end": images.stop / config.fps,
                "seen": ranges(frame for frame in section.seen if frame >= 0),  # what is missing, or an anchor, is none
                "context_tokens": section.context_tokens(height, width),
                "prompt": config.prompt_of(section),
                "seed": config.seed_of(section),
            }
        )
    return {
        "order": config.order,
        "schedule": config.schedule,
        "steps": config.steps,
        "fps": config.fps,
        "frames": config.frames,
        "images": config.images,
        "width": config.width * config.scale,
        "height": config.height * config.scale,
        "first_images": first,
        "sections": sections,
        "told": list(told),
        "estimate_seconds": estimate,
        "context_tokens_max": max(section["context_tokens"] for section in sections),
    }


def check(wanted: Wanted, settings: Settings, uploads: Path, blank: Path | None = None) -> Checked:
    """What a request comes to. It blocks, and needs the engine. `blank` stands for a start image that is missing.

    Raises:
        Refusal: it cannot be served; the message says what would do.
    """
    try:
        return _check(wanted, settings, uploads, blank)
    except LongtakeError as error:
        raise _refusal(error, settings) from None


def _refusal(error: LongtakeError, settings: Settings) -> Refusal:
    text = scrubbed(sentence(str(error)), settings.names)
    kinds = {StoryboardError: "storyboard", ModelError: "model"}
    param = kinds.get(type(error)) or next((p for p, words in WORDS.items() if any(w in text for w in words)), None)
    return Refusal("invalid_request", text, param)


def _check(wanted: Wanted, settings: Settings, uploads: Path, blank: Path | None) -> Checked:
    from longtake.backbones import inspect_model
    from longtake.pipeline import Extension, Request, preflight
    from longtake.pipeline.source import told_of

    kind = {"generate": Request, "extend": Extension}[wanted.kind]
    fields = dict(wanted.fields)
    model = fields.pop("model", None) or settings.default_model
    if model not in settings.models:
        raise Refusal(
            "invalid_request", f"there is no model {model[:80]!r} here; there are {', '.join(settings.models)}", "model"
        )
    allowed = set(kind.model_fields) - {"parts"} - (set() if settings.loras else {"loras"})
    for key in fields:
        if key not in allowed:
            raise Refusal(
                "invalid_request", f"there is no field {key[:80]!r}; {named(key, allowed - REFUSED)}", f"longtake.{key}"
            )
    outline = inspect_model(settings.models[model])
    fps = outline.settings.fps
    if wanted.fps and abs(wanted.fps - fps) > 1e-6:
        raise Refusal("invalid_request", f"the model {model} makes {fps:g} images a second; leave fps out", "fps")
    if wanted.images:
        fields["seconds"] = wanted.images / fps
    if wanted.last:
        fields = ending(fields, wanted.last, float(fields.get("seconds", 6.0)))
    source = {"generate": "image", "extend": "video"}[wanted.kind]
    if source not in fields and not blank:
        param = {"image": "input_reference", "video": "video"}[source]
        raise Refusal("invalid_request", f"{param} is missing; the id of an upload would do", param)
    local = placed(fields, lambda upload: str(uploads / upload))
    local = {source: str(blank), **local, "model": settings.models[model]}
    try:
        request = kind.model_validate(local)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        message = scrubbed(f"{place}: {text[:1].lower()}{text[1:]}" if place else text, settings.names)
        raise Refusal("invalid_request", message, place or None) from None
    if request.loras:
        fields["loras"] = [lora.model_dump(mode="json") for lora in request.loras]
        request = request.model_copy(update={"loras": loras_of(request.loras, settings)})
    work = settings.home / "work"
    checked = preflight(request, work / "plan.mp4", work / f"plan-{uuid4().hex}")
    told = list(told_of(checked.film, checked.config)) if checked.film else []
    told += [f"{snap.cue}: {snap.asked:g} s -> {snap.got:g} s" for snap in checked.script.snaps]
    told += [line for report in checked.loras for line in str(report).splitlines()]
    plan = plan_of(checked.config, [scrubbed(line.strip(), settings.names) for line in told])
    return Checked(
        {"model": model, **fields},
        plan,
        model,
        request.seconds,
        checked.config.steps,
        tuple(section["place"] for section in plan["sections"]),
    )


def loras_of(asked: Sequence[Lora], settings: Settings) -> tuple[Lora, ...]:
    """The LoRAs that are asked for by name, as files of the studio's folder of them.

    Raises:
        InputError: there is no such file.
    """
    here = {path.name: path for path in sorted(settings.loras.glob("*.safetensors"))} if settings.loras else {}
    for lora in asked:
        if str(lora.file) not in here:
            raise InputError(f"there is no LoRA {str(lora.file)!r} here; there are {', '.join(here) or 'none'}")
    return tuple(lora.model_copy(update={"file": here[str(lora.file)]}) for lora in asked)


def priced(plan: Mapping[str, Any], usual: float | None) -> dict[str, Any]:
    """A plan with how long it will take, if steps usually take so many seconds."""
    estimate = round(usual * plan["steps"] * len(plan["sections"]), 1) if usual else plan["estimate_seconds"]
    return {**plan, "estimate_seconds": estimate}
