"""What is asked for, and what that means for a model: one schema for Python, command line, files and metadata."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from longtake.backbones.lora import Loras
from longtake.backbones.placement import AnyStorage
from longtake.errors import InputError, PlanError
from longtake.flow import FRAMEPACK_SHIFT, Pyramid, Sampling
from longtake.plan import (
    SEEDS,
    STRONGEST,
    VANILLA,
    Cue,
    Gaps,
    Manner,
    Plan,
    Script,
    Section,
    Storyboard,
    Told,
    anchored,
    as_storyboard,
    check_reached,
    compile_storyboard,
    default_order,
    find_order,
    images_of,
    make_plan,
    order_of,
    place_of,
    sections_for,
)
from longtake.schedule import find_schedule, parse

if TYPE_CHECKING:
    from longtake.backbones import BackboneSettings

__all__ = [
    "Config",
    "Extension",
    "Request",
    "Side",
    "Source",
    "read_extension",
    "read_request",
    "resolve",
    "retold",
    "script_of",
]

T = TypeVar("T")
W = TypeVar("W", bound="_Wish")
Side = Literal["after", "before"]
USUAL = {"after": "vanilla", "before": "inverted"}  # the order that begins where the video is
LONGEST = 24 * 3600.0  # seconds of video that can be asked for


class _Wish(BaseModel):
    """What every request can say. What is None is the model's own choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = ""
    storyboard: Storyboard = Storyboard()  # what is told over time; where it says nothing, the prompt holds
    seconds: float = Field(default=6.0, gt=0, le=LONGEST)
    model: str = "embedded"
    parts: dict[str, Path] = {}  # of the model that are elsewhere, by name: a folder, or a single file of weights
    loras: Loras = ()  # files, with their weights
    storage: AnyStorage = "full"  # of the blocks' matrices; less memory, not the same video
    fp8: bool = False  # compute in eight bits where the device can
    compat: Literal["longtake", "official"] = "longtake"  # official: as FramePack's own program has it
    order: str | None = None
    schedule: str | None = None
    gaps: Gaps | None = None
    codebook: dict[str, Annotated[int, Field(gt=0)]] = {}  # words that history is rounded to (+D), by kernel or "*"
    discretize_images: bool = False  # with +D: round the user's own images, too
    importance: Literal["time", "similarity", "hybrid"] = (
        "time"  # of frames: the finest kernels read the most important
    )
    importance_time: float = Field(default=1.0, ge=0)  # with hybrid: lambda_time, what nearness in time counts
    importance_estimate: Literal["nearest", "first_step"] = "nearest"  # what stands for the next section
    importance_compare: Literal["first", "best", "mean"] = "best"  # which of its frames a known one is compared with
    history_sigma: float | None = Field(default=None, ge=0, le=1)  # of the noise that is mixed into history
    history_guidance: float | None = Field(default=None, ge=1.0, le=100.0)
    history_without: Annotated[float, Field(gt=0, le=1)] | Literal["drop"] | None = None  # what that leads away from
    steps: int | None = Field(default=None, ge=1, le=1000)
    solver: Literal["euler", "unipc", "unipc_flow", "dmd"] | None = None
    guidance: float | None = Field(default=None, ge=1.0, le=STRONGEST)
    distilled_guidance: float | None = Field(default=None, ge=0.0, le=STRONGEST)  # for networks distilled to obey it
    negative_prompt: str = ""
    cache: str = "none"  # of steps: reuses what earlier ones computed; draft: the model's own
    posterior: Literal["mean", "sample"] | None = None  # of the start image's latents; a sample belongs to the seed
    seed: int = Field(default=0, ge=0, lt=SEEDS)
    height: int | None = Field(default=None, ge=16, le=8192)
    width: int | None = Field(default=None, ge=16, le=8192)
    scale: int = Field(default=1, ge=1, le=8)  # pixels of the file for each pixel made (Lanczos)
    crf: int = Field(default=16, ge=0, le=51)
    seeds: dict[int, int] = {}  # of sections, by their place in the order of making, that have a seed of their own

    @model_validator(mode="before")
    @classmethod
    def _said_once(cls, data: Any) -> Any:
        """Reads times in the prompt, too; what is told to the whole video is the request's own."""
        if not isinstance(data, dict):
            return data
        prompt, image = data.get("prompt", ""), data.get("image")
        if not (isinstance(prompt, str) and isinstance(image, str | Path | None)):
            return data  # to be refused
        board = as_storyboard(data.get("storyboard", {})).joined(prompt, Path(image) if image else None)
        whole = {"prompt": board.prompt, "storyboard": replace(board, prompt="", image=None)}
        return {**data, **whole, **({"image": str(board.image)} if board.image else {})}

    @field_validator("codebook", mode="before")
    @classmethod
    def _sizes(cls, value: Any) -> Any:
        """Also reads 128 for every kernel, and k1=1024,k4=64 for some."""
        if isinstance(value, int):
            return {"*": value}
        if isinstance(value, str):
            parts = [part.rpartition("=") for part in value.split(",")]
            return {kernel.strip() or "*": size.strip() for kernel, _, size in parts}
        return value

    @field_validator("parts", mode="before")
    @classmethod
    def _places(cls, value: Any) -> Any:
        """Also reads a list of name=path."""
        if isinstance(value, list | tuple):
            pairs = [str(one).partition("=") for one in value]
            if any(not path for _, _, path in pairs):
                raise ValueError("expected name=path, such as transformer=model.safetensors")
            return {name: path for name, _, path in pairs}
        return value


class Request(_Wish):
    """A video to make from a start image. What is None is the model's own choice."""

    image: Path


class Extension(_Wish):
    """A video to make longer: what comes after it, or what was before it. What is None is the model's own choice.

    `seconds` are those to be made, and the storyboard's times begin with them.
    """

    video: Path
    side: Side = "after"

    @model_validator(mode="after")
    def _without_images(self) -> Extension:
        if self.storyboard.loop or any(cue.image for cue in self.storyboard.cues):
            raise ValueError("key images and loops lead from a start image; a video is extended by words")
        return self


class Source(BaseModel):
    """The video that is made longer, at the model's size and images a second."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: Side  # on which it is made longer
    images: int  # of it
    frames: int  # that its images are encoded as: the first one is one image's, the others are several each

    @property
    def first(self) -> int:
        """The first frame that is made: the source's are before it, or what is made begins the video."""
        return {"after": self.frames, "before": 0}[self.side]

    @property
    def beyond(self) -> int:
        """How many of its frames follow what is made. The first of them is not among these: it is of one image."""
        return {"after": 0, "before": self.frames - 1}[self.side]

    def encoded(self, temporal_ratio: int) -> range:
        """The images that are encoded; up to three at the end that is farther from what is made are not."""
        count = 1 + temporal_ratio * (self.frames - 1)
        return {"after": range(self.images - count, self.images), "before": range(count)}[self.side]


class Config(BaseModel):
    """A request with nothing left open: what a run follows, and follows again when it is resumed."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    prompt: str
    negative_prompt: str
    model: str
    fingerprint: str  # of the model's files, and of its LoRAs
    parts: dict[str, Path] = {}
    loras: Loras = ()
    storage: AnyStorage = "full"
    fp8: bool = False
    compat: Literal["longtake", "official"] = "longtake"
    order: str
    schedule: str
    gaps: Gaps
    codebook: dict[str, int] = {}
    discretize_images: bool = False
    importance: Literal["time", "similarity", "hybrid"] = "time"
    importance_time: float = 1.0
    importance_estimate: Literal["nearest", "first_step"] = "nearest"
    importance_compare: Literal["first", "best", "mean"] = "best"
    history_sigma: float = 0.0
    history_guidance: float = 1.0
    history_without: float | Literal["drop"] = "drop"
    manner: Manner = "stream"
    missing: Literal["absent", "zeros"]
    frames: int
    temporal_ratio: int
    steps: int
    solver: Literal["euler", "unipc", "unipc_official", "unipc_flow", "dmd"]
    noise: Literal["section", "running"] = "section"  # that belongs to a section alone, or to those before it, too
    shift: float
    sampling: Sampling | None = None  # from coarse to fine, if so; it stands for steps, solver and shift
    guidance: float
    guidance_rescale: float
    distilled_guidance: float | None = None
    second_guidance: float = 1.0  # of a second transformer, if the model has one
    cache: str = "none"
    posterior: Literal["mean", "sample"] = "mean"
    seed: int
    height: int
    width: int
    fps: float
    scale: int
    crf: int
    seeds: dict[int, int]
    told: tuple[Told, ...] = ()  # to each section by its place in time; empty: nothing but what is told to all
    given: tuple[int, ...] = ()  # the frames of key images
    source: Source | None = None  # the video that is made longer, if one is

    @property
    def besides(self) -> tuple[str, ...]:
        """What is not as it is by default and is no part of the plan, such as `storage int8`."""
        options = ("storage", "compat", "cache", "posterior", "importance", "history_sigma", "history_guidance")
        chosen = {name: getattr(self, name) for name in options}
        said = [f"{n.replace('_', ' ')} {v}" for n, v in chosen.items() if v != Config.model_fields[n].default]
        return (*said, "fp8") if self.fp8 else tuple(said)

    @property
    def first(self) -> int:
        """The first frame that is made."""
        return self.source.first if self.source else 1

    @property
    def images(self) -> int:
        """Images of the whole video."""
        return self.made_images.stop + (self.source.images if self.source and self.source.side == "before" else 0)

    @property
    def made_images(self) -> range:
        """The images that are made, of the whole video, as numbers; with the start image, if there is one.

        Before a source they end one image earlier than their frames do: that image is the first one of the source.
        """
        count = self._images_behind(self.frames - self.first)
        if self.source is None:
            return range(self._shown + count)
        begin, less = {"after": (self.source.images, 0), "before": (0, 1)}[self.source.side]
        return range(begin, begin + count - less)

    def images_at(self, place: int) -> range:
        """The images of the section at a place in time, by their numbers; with those of place 0 begins what is made."""
        every, generated = self.made_images, parse(self.schedule).generated
        begin, end = (self._shown + self._images_behind(generated * places) for places in (place, place + 1))
        return every[begin if place else 0 : end]

    @property
    def _shown(self) -> int:
        """Images that the start image is of the video."""
        return {"stream": int(self.source is None), "anchored": 0}[self.manner]

    def _images_behind(self, frames: int) -> int:
        """Images of the first so many frames that are made."""
        generated = parse(self.schedule).generated
        whole, rest = divmod(frames, generated)
        count = whole * images_of(generated, self.temporal_ratio, self.manner)
        return count + images_of(rest, self.temporal_ratio, self.manner) if rest else count

    def plan(self) -> Plan:
        """The plan that this config means."""
        plan = make_plan(
            parse(self.schedule),
            self.frames,
            self.order,
            self.gaps,
            self.missing,
            self.given,
            first=self.first,
            beyond=self.source.beyond if self.source else 0,
        )
        return {"stream": lambda plan: plan, "anchored": anchored}[self.manner](plan)

    def pyramid_of(self, section: Section) -> Pyramid | None:
        """The sizes that a section is sampled in, if it is sampled from coarse to fine."""
        return self.sampling and self.sampling.guided(self.guidance_of(section)).pyramid(section.index)

    def steps_of(self, section: Section) -> int:
        """The steps of a section: the first one of a distilled model can take more than the others."""
        pyramid = self.pyramid_of(section)
        return sum(pyramid.steps) if pyramid else self.steps

    def _told_to(self, section: Section) -> Told:
        place = place_of(section.frames[0], self.first, parse(self.schedule).generated)
        return self.told[place] if self.told else Told(self.prompt)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The different prompts of the sections, in time order."""
        return tuple(dict.fromkeys(told.prompt for told in self.told)) or (self.prompt,)

    def prompt_of(self, section: Section) -> str:
        """What happens in a section."""
        return self._told_to(section).prompt

    def guidance_of(self, section: Section) -> float:
        """How far a section is led away from the negative prompt."""
        return _or(self._told_to(section).guidance, self.guidance)

    def seed_of(self, section: Section) -> int:
        """The seed of a section's noise."""
        return self.seeds.get(section.index, _or(self._told_to(section).seed, self.seed))


def read_request(data: Any, origin: str = "the request") -> Request:
    """A request from loose data.

    Raises:
        InputError: keys or values are wrong; each is named.
    """
    return _read(Request, data, origin)


def read_extension(data: Any, origin: str = "the request") -> Extension:
    """A request to make a video longer, from loose data.

    Raises:
        InputError: keys or values are wrong; each is named.
    """
    return _read(Extension, data, origin)


def _read(kind: type[W], data: Any, origin: str) -> W:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join([f"{origin} cannot be used:", *map(_said, error.errors())])) from error


def _said(wrong: ErrorDetails) -> str:
    """What is wrong at one place of a request. Sentences of our own name what was given themselves."""
    place = ".".join(map(str, wrong["loc"]))
    if wrong["type"] == "value_error":
        message = wrong["msg"].removeprefix("Value error, ")
        return f"  {place}: {message}" if place else f"  {message}"
    return f"  {place}: {wrong['msg'].lower()}, got {wrong['input']!r}"


def script_of(request: Request | Extension, config: Config) -> Script:
    """What the request's storyboard tells each section of the video of this config.

    Raises:
        StoryboardError: the storyboard does not fit the video.
    """
    image = request.image if isinstance(request, Request) else None
    board = replace(request.storyboard, prompt=request.prompt, image=image)
    generated = parse(config.schedule).generated
    sections = (config.frames - config.first) // generated
    return compile_storyboard(board, sections, generated, config.temporal_ratio, config.fps, config.manner)


def retold(request: W, config: Config) -> W:
    """The request that would give a config's `told`: its storyboard says it in cues, a section each or several."""
    generated = parse(config.schedule).generated
    seconds = generated * config.temporal_ratio / config.fps
    images = tuple(Cue(cue.at, image=cue.image) for cue in request.storyboard.cues if cue.image)
    cues, place = list[Cue](), 0
    for told, same in groupby(config.told):
        begin, place = place, place + len(list(same))
        prompt = None if told.prompt == request.prompt else told.prompt
        if (prompt, told.seed, told.guidance) != (None, None, None):
            cues.append(Cue(seconds * begin, seconds * place, prompt, told.seed, told.guidance))
    return request.model_copy(update={"storyboard": replace(request.storyboard, cues=(*cues, *images))})


def _check_joined(config: Config) -> None:
    """Checks that there is such a plan, and that what is made next to a source sees it."""
    plan = config.plan()
    if config.source and config.source.side == "after" and plan.first - 1 not in plan.by_place()[0].seen:
        raise PlanError(
            f"the schedule {plan.schedule} sees nothing next to g on its left, so it does not see how the video ends; "
            f"one that does: {VANILLA}"
        )


def _or(given: T | None, default: T) -> T:
    return default if given is None else given


def _sampling(request: _Wish, settings: BackboneSettings) -> Sampling | None:
    """How the model samples from coarse to fine, with the steps and by the solver that were asked for."""
    sampling = settings.sampling
    if sampling and request.solver:
        sampling = sampling.solved(request.solver)
    return sampling.spread(request.steps) if sampling and request.steps else sampling


def _side(name: str, given: int | None, default: int, unit: int) -> int:
    value = _or(given, default)
    if value % unit:
        below, above = value // unit * unit, (value // unit + 1) * unit
        near = f"{below} and {above}" if below else str(above)
        raise InputError(f"a {name} of {value} is off the model's grid of {unit} pixels; its neighbors are {near}")
    return value


def resolve(
    request: Request | Extension,
    settings: BackboneSettings,
    grid: tuple[int, int],
    temporal_ratio: int,
    fingerprint: str,
    source: Source | None = None,
) -> Config:
    """The config of a request for a model with these settings; `source` is the video that is made longer, if one is.

    Raises:
        InputError: a size is off the grid, or a codebook is for a kernel that the schedule lacks or beside noise.
        ScheduleError: the schedule's name cannot be read.
        PlanError: order, schedule and length do not go together, or key images with them.
        StoryboardError: the storyboard does not fit the video.
    """
    official = request.compat == "official"
    if official:
        settings = settings.model_copy(update={"gaps": "clamped", "missing": "zeros", "shift": FRAMEPACK_SHIFT})
    usual = USUAL[source.side] if source else settings.order
    if request.schedule and not (source and find_order(usual).serves(find_schedule(request.schedule))):
        usual = default_order(find_schedule(request.schedule))
    order = request.order or usual
    name = request.schedule or settings.schedules.get(order_of(order)) or settings.schedules[settings.order]
    schedule = find_schedule(name)
    if request.codebook:
        schedule = replace(schedule, discrete=True)
    foreign = set(request.codebook) - {"*", *map(str, schedule.kernels)}
    if foreign:
        raise InputError(
            f"a codebook for {min(foreign)}: the schedule {schedule} has the kernels "
            f"{', '.join(map(str, schedule.kernels))}; * stands for all"
        )
    sections = sections_for(request.seconds, settings.fps, schedule.generated, temporal_ratio, settings.manner)
    sampling, solver = _sampling(request, settings), "unipc_official" if official else settings.solver
    coarsest = sampling.coarsest if sampling else 1  # that size has whole tokens, too
    height = _side("height", request.height, settings.height, grid[0] * coarsest)
    width = _side("width", request.width, settings.width, grid[1] * coarsest)
    config = Config(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        model=request.model,
        fingerprint=fingerprint,
        parts=request.parts,
        loras=request.loras,
        storage=request.storage,
        fp8=request.fp8,
        compat=request.compat,
        order=order,
        schedule=str(schedule),
        gaps=request.gaps or settings.gaps,
        codebook=request.codebook or ({"*": settings.codebook} if schedule.discrete else {}),
        discretize_images=request.discretize_images,
        importance=request.importance,
        importance_time=request.importance_time,
        importance_estimate=request.importance_estimate,
        importance_compare=request.importance_compare,
        history_sigma=_or(request.history_sigma, settings.history_sigma),
        history_guidance=_or(request.history_guidance, settings.history_guidance),
        history_without=_or(request.history_without, settings.history_without),
        manner=settings.manner,
        missing=settings.missing,
        frames=(source.first if source else 1) + schedule.generated * sections,
        temporal_ratio=temporal_ratio,
        steps=sampling.steps if sampling else request.steps or settings.steps,
        solver=sampling.usual.solver if sampling else request.solver or solver,
        noise="running" if official else "section",
        shift=settings.shift_at(schedule.generated * (height // grid[0]) * (width // grid[1]), height * width),
        sampling=sampling,
        guidance=_or(request.guidance, settings.guidance),
        guidance_rescale=settings.guidance_rescale,
        distilled_guidance=_or(request.distilled_guidance, settings.distilled_guidance),
        second_guidance=_or(request.guidance, settings.second_guidance),
        cache=settings.draft if request.cache == "draft" else request.cache,
        posterior=request.posterior or ("sample" if official else "mean"),
        seed=request.seed,
        height=height,
        width=width,
        fps=settings.fps,
        scale=request.scale,
        crf=request.crf,
        seeds=request.seeds,
        source=source,
    )
    if request.storyboard.timed:
        script = script_of(request, config)
        config = config.model_copy(update={"told": script.told, "given": tuple(key.frame for key in script.keys)})
        check_reached(script, config.plan())
    _check_joined(config)
    if config.codebook and (config.history_sigma or config.history_guidance > 1):
        raise InputError("discretized history (+D) rounds noise away; with it history_sigma is 0, history_guidance 1")
    return config
