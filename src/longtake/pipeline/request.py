"""What is asked for, and what that means for a model: one schema for Python, command line, files and metadata."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from longtake.errors import InputError
from longtake.plan import (
    SEEDS,
    STRONGEST,
    Gaps,
    Plan,
    Script,
    Section,
    Storyboard,
    Told,
    as_storyboard,
    check_reached,
    compile_storyboard,
    default_order,
    make_plan,
    order_of,
    sections_for,
)
from longtake.schedule import find_schedule, parse

if TYPE_CHECKING:
    from longtake.backbones import BackboneSettings

__all__ = ["Config", "Request", "read_request", "resolve", "script_of"]

T = TypeVar("T")
LONGEST = 24 * 3600.0  # seconds of video that can be asked for


class Request(BaseModel):
    """A video to make. What is None is the model's own choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Path
    prompt: str = ""
    storyboard: Storyboard = Storyboard()  # what is told over time; where it says nothing, the prompt holds
    seconds: float = Field(default=6.0, gt=0, le=LONGEST)
    model: str = "embedded"
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
    solver: Literal["euler", "unipc"] | None = None
    guidance: float | None = Field(default=None, ge=1.0, le=STRONGEST)
    negative_prompt: str = ""
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


class Config(BaseModel):
    """A request with nothing left open: what a run follows, and follows again when it is resumed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    negative_prompt: str
    model: str
    fingerprint: str  # of the model's files
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
    missing: Literal["absent", "zeros"]
    frames: int
    temporal_ratio: int
    steps: int
    solver: Literal["euler", "unipc"]
    shift: float
    guidance: float
    guidance_rescale: float
    seed: int
    height: int
    width: int
    fps: float
    scale: int
    crf: int
    seeds: dict[int, int]
    told: tuple[Told, ...] = ()  # to each section by its place in time; empty: nothing but what is told to all
    given: tuple[int, ...] = ()  # the frames of key images

    @property
    def images(self) -> int:
        """Images of the whole video."""
        return self.temporal_ratio * (self.frames - 1) + 1

    def plan(self) -> Plan:
        """The plan that this config means."""
        return make_plan(parse(self.schedule), self.frames, self.order, self.gaps, self.missing, self.given)

    def _told_to(self, section: Section) -> Told:
        place = (section.frames[0] - 1) // parse(self.schedule).generated
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
    try:
        return Request.model_validate(data)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, e['loc']))}: {e['msg'].lower()}, got {e.get('input')!r}" for e in error.errors()
        ]
        raise InputError("\n".join([f"{origin} cannot be used:", *lines])) from error


def script_of(request: Request, config: Config) -> Script:
    """What the request's storyboard tells each section of the video of this config.

    Raises:
        StoryboardError: the storyboard does not fit the video.
    """
    board = replace(request.storyboard, prompt=request.prompt, image=request.image)
    generated = parse(config.schedule).generated
    sections = (config.frames - 1) // generated
    return compile_storyboard(board, sections, generated, config.temporal_ratio, config.fps)


def _or(given: T | None, default: T) -> T:
    return default if given is None else given


def _side(name: str, given: int | None, default: int, unit: int) -> int:
    value = _or(given, default)
    if value % unit:
        below, above = value // unit * unit, (value // unit + 1) * unit
        near = f"{below} and {above}" if below else str(above)
        raise InputError(f"a {name} of {value} is off the model's grid of {unit} pixels; its neighbors are {near}")
    return value


def resolve(
    request: Request, settings: BackboneSettings, grid: tuple[int, int], temporal_ratio: int, fingerprint: str
) -> Config:
    """The config of a request for a model with these settings.

    Raises:
        InputError: a size is off the grid, or a codebook is for a kernel that the schedule lacks or beside noise.
        ScheduleError: the schedule's name cannot be read.
        PlanError: order, schedule and length do not go together, or key images with them.
        StoryboardError: the storyboard does not fit the video.
    """
    order = request.order or (default_order(find_schedule(request.schedule)) if request.schedule else settings.order)
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
    sections = sections_for(request.seconds, settings.fps, schedule.generated, temporal_ratio)
    config = Config(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        model=request.model,
        fingerprint=fingerprint,
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
        missing=settings.missing,
        frames=1 + schedule.generated * sections,
        temporal_ratio=temporal_ratio,
        steps=request.steps or settings.steps,
        solver=request.solver or settings.solver,
        shift=settings.shift,
        guidance=_or(request.guidance, settings.guidance),
        guidance_rescale=settings.guidance_rescale,
        seed=request.seed,
        height=_side("height", request.height, settings.height, grid[0]),
        width=_side("width", request.width, settings.width, grid[1]),
        fps=settings.fps,
        scale=request.scale,
        crf=request.crf,
        seeds=request.seeds,
    )
    if request.storyboard.timed:
        script = script_of(request, config)
        config = config.model_copy(update={"told": script.told, "given": tuple(key.frame for key in script.keys)})
        check_reached(script, config.plan())
    config.plan()
    if config.codebook and (config.history_sigma or config.history_guidance > 1):
        raise InputError("discretized history (+D) rounds noise away; with it history_sigma is 0, history_guidance 1")
    return config
