"""What is asked over HTTP, and what that is in longtake's own words.

The names are those of OpenAI's and vLLM's video calls; whatever else longtake can be asked stands in `longtake`. Images
and videos are names of uploads, nothing else: no text of a request is ever taken for a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longtake.errors import StoryboardError
from longtake.plan import Cue, Storyboard, as_storyboard, read_storyboard
from longtake.web.job import Kind
from longtake.web.refusal import Refusal, sentence

__all__ = ["UPLOAD", "Create", "Extend", "Plan", "Wanted", "named", "placed", "read", "wanted"]

UPLOAD = re.compile(r"upload_[0-9a-f]{24}")
SIZE = re.compile(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*")
M = TypeVar("M", bound=BaseModel)

Reference = Annotated[
    str | dict[str, Any], Field(description='An upload\'s id, or {"image_url": "data:image/png;base64,..."}')
]


class Plan(BaseModel):
    """What a video is asked to be. What is left out is the model's own choice."""

    model_config = ConfigDict(extra="forbid", title="Plan request")

    prompt: str = Field(default="", max_length=100_000)
    model: str | None = Field(default=None, max_length=200)
    seconds: float | None = Field(default=None, gt=0, le=86400, description="A number, or the same as a string")
    size: str | None = Field(default=None, max_length=20, description="WIDTHxHEIGHT")
    width: int | None = Field(default=None, ge=16, le=8192)
    height: int | None = Field(default=None, ge=16, le=8192)
    num_frames: int | None = Field(default=None, ge=1, le=10_000_000, description="Images, instead of seconds")
    fps: float | None = Field(default=None, gt=0, le=1000)
    input_reference: Reference | None = None
    last_image: Reference | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    negative_prompt: str | None = Field(default=None, max_length=100_000)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100, description="Of networks distilled to obey it")
    true_cfg_scale: float | None = Field(default=None, ge=1, le=100, description="Classifier-free guidance")
    storyboard: str | dict[str, Any] | None = Field(default=None, description="Text or JSON; images are uploads' ids")
    order: str | None = Field(default=None, max_length=100)
    sampling_type: str | None = Field(default=None, max_length=100, description="The same as order")
    schedule: str | None = Field(default=None, max_length=1000)
    extra_params: dict[str, Any] | None = None
    longtake: dict[str, Any] | None = Field(default=None, description="Any other field of longtake's request")


class Create(Plan):
    """A video to make from a start image."""

    model_config = ConfigDict(extra="forbid", title="Create request")


class Extend(Plan):
    """A video to make longer."""

    model_config = ConfigDict(extra="forbid", title="Extend request")

    video: str | dict[str, Any] | None = Field(default=None, description="An upload's id, or {\"id\": a video's id}")
    side: Literal["after", "before"] = "after"


# The fields that longtake calls something else.
OURS = {
    "prompt": "prompt", "model": "model", "seconds": "seconds", "width": "width", "height": "height", "seed": "seed",
    "negative_prompt": "negative_prompt", "num_inference_steps": "steps", "guidance_scale": "distilled_guidance",
    "true_cfg_scale": "guidance", "order": "order", "sampling_type": "order", "schedule": "schedule", "side": "side",
}  # fmt: skip
THEIRS = {"image": "input_reference", "video": "video", "storyboard": "storyboard", "parts": "model"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request in longtake's words, but for what only the model can tell."""

    kind: Kind
    fields: dict[str, Any]  # of Request or Extension; images and videos are uploads' ids
    images: int | None = None  # instead of seconds
    fps: float | None = None
    last: str | None = None  # the upload that the video ends with


def named(name: str, known: Iterable[str]) -> str:
    """A hint at what was meant by an unknown name."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def read(kind: type[M], data: Any) -> M:
    """A request from loose data.

    Raises:
        Refusal: it cannot be used; the first field that is wrong is named.
    """
    if not isinstance(data, Mapping):
        raise Refusal("invalid_request", 'the body is no JSON object; {"prompt": "a red ball rolls"} would be one')
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(part) for part in first["loc"] if part not in ("str", "dict[str,any]")]
        if first["type"] == "extra_forbidden":
            hint = named(place[-1], kind.model_fields)
            raise Refusal("invalid_request", f"there is no field {place[-1][:80]!r}; {hint}", place[-1]) from None
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise Refusal("invalid_request", f"{'.'.join(place)}: {message}", place[0] if place else None) from None


def wanted(asked: Plan, find: Callable[[str | dict[str, Any], str], str]) -> Wanted:
    """A request in longtake's words; `find` gives the upload that a reference means, for the field it stands in.

    Raises:
        Refusal: it says something twice, or means no upload.
    """
    given = asked.model_dump(exclude_unset=True, exclude_none=True)
    if "order" in given and given.get("sampling_type", given["order"]) != given["order"]:
        raise Refusal("invalid_request", "order and sampling_type are the same; one of them would do", "order")
    if "num_frames" in given and "seconds" in given:
        raise Refusal("invalid_request", "num_frames and seconds both say how long; one of them would do", "num_frames")
    fields = {ours: given[theirs] for theirs, ours in OURS.items() if theirs in given}
    fields |= _sized(given)
    for name in ("extra_params", "longtake"):
        for key, value in given.get(name, {}).items():
            if key in THEIRS:
                raise Refusal("invalid_request", f"{key} stands in {THEIRS[key]}, not in {name}", name)
            if key in fields and fields[key] != value:
                raise Refusal("invalid_request", f"{key} is said twice; once would do", f"{name}.{key}")
            fields[key] = value
    image = find(given["input_reference"], "input_reference") if "input_reference" in given else None
    board = _board(given.get("storyboard") or None, fields.pop("prompt", ""), image, find)
    if board.prompt:
        fields["prompt"] = board.prompt
    if board.timed:
        fields["storyboard"] = plain(board)
    if board.image:
        fields["image"] = str(board.image)
    kind: Kind = "extend" if isinstance(asked, Extend) else "generate"
    if isinstance(asked, Extend):
        fields["side"] = asked.side
        if asked.video is not None:
            fields["video"] = find(asked.video, "video")
        if image or "last_image" in given:
            raise Refusal("invalid_request", "a video is extended by words, without images", "input_reference")
    last = find(given["last_image"], "last_image") if "last_image" in given else None
    return Wanted(kind, fields, given.get("num_frames"), given.get("fps"), last)


def _sized(given: Mapping[str, Any]) -> dict[str, int]:
    size = given.get("size", "auto")
    if size == "auto":
        return {}
    found = SIZE.fullmatch(size)
    if not found:
        raise Refusal("invalid_request", f"size: expected WIDTHxHEIGHT such as 384x256, got {size!r}", "size")
    width, height = int(found[1]), int(found[2])
    if given.get("width", width) != width or given.get("height", height) != height:
        raise Refusal("invalid_request", "size and width or height differ; one of them would do", "size")
    return {"width": width, "height": height}


def _board(
    told: str | dict[str, Any] | None, prompt: str, image: str | None, find: Callable[[str | dict[str, Any], str], str]
) -> Storyboard:
    """The storyboard, joined with the prompt; each of its images is an upload."""
    try:
        board = as_storyboard(told or {}) if not isinstance(told, str) else read_storyboard(told)
        board = board.joined(prompt, Path(image) if image else None)
    except StoryboardError as error:
        raise Refusal("invalid_request", sentence(str(error)), "storyboard" if told else "prompt") from None
    cues = tuple(
        replace(cue, image=Path(find(str(cue.image), "storyboard"))) if cue.image else cue for cue in board.cues
    )
    start = Path(find(str(board.image), "input_reference")) if board.image else None
    return replace(board, cues=cues, image=start)


def plain(board: Storyboard) -> dict[str, Any]:
    """A storyboard as JSON says it, without what the request says itself."""
    cues = [{key: _text(value) for key, value in asdict(cue).items() if value is not None} for cue in board.cues]
    return {"cues": cues, **({"loop": True} if board.loop else {})}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def ending(fields: Mapping[str, Any], last: str, seconds: float) -> dict[str, Any]:
    """The fields with an image that the video ends with."""
    board = as_storyboard(fields.get("storyboard") or {})
    board = replace(board, cues=(*board.cues, Cue(seconds, image=Path(last))))
    return {**fields, "storyboard": plain(board)}


def placed(fields: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """The fields with another name in place of each upload's id."""
    out = json.loads(json.dumps(dict(fields)))
    for key in ("image", "video"):
        if key in out:
            out[key] = place(out[key])
    for cue in (out.get("storyboard") or {}).get("cues", ()):
        if "image" in cue:
            cue["image"] = place(cue["image"])
    return out
