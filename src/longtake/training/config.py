"""What a training is told: one pydantic model a stage, presets, TOML files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longtake.backbones.architecture import CodecShape, TextShape, TransformerShape
from longtake.backbones.backbone import kernels_of
from longtake.backbones.settings import Without
from longtake.errors import ConfigError, PlanError, ScheduleError
from longtake.plan import BOTH_SIDES, INVERTED, Gaps, find_order, order_of
from longtake.schedule import parse
from longtake.training.optim import OptimizerSettings
from longtake.training.switches import (
    ChannelConfig,
    CorruptionConfig,
    DownsampleConfig,
    PrefixConfig,
    RecycleConfig,
    ResampleConfig,
    Share,
)

__all__ = ["PRESETS", "CodecConfig", "LoopConfig", "SectionConfig", "read_config", "resolve_config", "write_config"]

Dtype = Literal["float32", "bfloat16"]


class Config(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoopConfig(Config):
    """How long, and what is written down on the way."""

    steps: int = 10_000
    seconds: float = 0.0  # 0: no limit; else the schedule also runs by the clock
    warmup: int = 100  # steps; not a share of the time, of which compiling may take the first part
    hold: float = 0.6  # until which share of the training the rates stay at their peak
    seed: int = 0
    log_every: int = 20
    evaluate_every: int = 1_000
    checkpoint_seconds: float = 120.0
    checkpoint_steps: tuple[int, ...] = ()


Limited = TypeVar("Limited", bound="StageLimits")


class StageLimits(Config):
    """What every stage can be told from outside."""

    loop: LoopConfig = LoopConfig()
    batch: int = 8

    def with_limits(self: Limited, steps: int | None, seconds: float | None, batch: int | None) -> Limited:
        """This config with other limits; None leaves what is there."""
        given = {"steps": steps, "seconds": seconds}
        loop = self.loop.model_copy(update={k: v for k, v in given.items() if v is not None})
        return self.model_copy(update={"loop": loop, **({} if batch is None else {"batch": batch})})


class CodecConfig(StageLimits):
    """Stage `codec`."""

    stage: Literal["codec"] = "codec"
    shape: CodecShape = CodecShape()
    loop: LoopConfig = LoopConfig(evaluate_every=1_000)
    optimizer: OptimizerSettings = OptimizerSettings(matrix_rate=2e-3, vector_rate=1e-3)
    batch: int = 8
    images: int = 49  # longer than half the encoder's reach; shorter clips train a codec that fails on long video
    edge_weight: float = 0.5
    first_weight: float = 0.1  # of the first image's error, beside the mean over all images
    divergence_weight: float = 1e-4
    held_out_clips: int = 16
    dtype: Dtype = "bfloat16"
    compile: bool = True


class DiscreteConfig(Config):
    """Discretized history (+D): rounded to words by k-means on the latents of the training clips."""

    share: float = 0.3  # of steps, whose history is not corrupted besides
    sizes: tuple[int, ...] = (1, 16, 64, 128, 256, 1024)  # of codebooks, of which each such step draws one
    vectors: int = 1 << 19  # latent pixels that words are made from


class UseConfig(Config):
    """How the model reads history once it is trained, kept in its longtake.json; "model": as it does already."""

    gaps: Gaps | Literal["model"] = "model"  # "model": those that it is trained with
    history_time: Literal["model", "same", "clean", "noisy"] = "model"  # in training, too
    attention: Literal["model", "full", "causal"] = "model"  # in training, too
    history_sigma: Share | Literal["model"] = "model"
    history_guidance: Annotated[float, Field(ge=1)] | Literal["model"] = "model"
    history_without: Without | Literal["model"] = "model"

    @property
    def settings(self) -> dict[str, Any]:
        """What is not left to the model."""
        return {name: value for name, value in self.model_dump().items() if value != "model"}


class SectionConfig(StageLimits):
    """Stages `base` (no history: a plain video model) and `pack` (a next-frame-section model)."""

    stage: Literal["base", "pack"] = "pack"
    shape: TransformerShape = TransformerShape()
    text: TextShape = TextShape()
    text_length: int = 40
    schedules: dict[str, str] = {
        "vanilla": BOTH_SIDES,
        "inverted": INVERTED,
        "planned": BOTH_SIDES,
        "anti_drifting": BOTH_SIDES,
    }
    shares: dict[str, float] = {  # of steps; an order, and after a space a schedule that is not the one above
        "vanilla": 0.26,
        "vanilla td_f16k4f2k2f1k1_g9": 0.16,  # without the start image, but for the tail: the paper's vanilla
        "inverted": 0.18,
        "planned:2": 0.06,
        "planned:3": 0.1,
        "planned:4": 0.06,
        "planned:9,3": 0.08,
        "anti_drifting": 0.1,
    }
    gaps: Gaps = "clamped"
    key_share: float = 0.12  # of steps in which a later image is given
    startless_share: float = 0.06  # of steps without the start image, as where a video is extended to the front
    first_share: float = 0.2  # of steps that train the section made first
    second_share: float = 0.15
    starts: tuple[int, ...] = (0, 72, 144)  # images of a clip at which an encoding of it begins
    mirror: bool = True  # train on every clip and on its mirror image
    use: UseConfig = UseConfig()
    corruption: CorruptionConfig = CorruptionConfig()
    discrete: DiscreteConfig = DiscreteConfig()
    shift: Annotated[float, Field(gt=0)] | Literal["model"] = "model"  # of noise levels; that of a new model is 3
    uniform_share: float = 0.1  # of noise levels drawn evenly; the rest are logit-normal
    caption_drop: float = 0.1
    word_drop: float = 0.02
    loop: LoopConfig = LoopConfig(evaluate_every=1_000)
    optimizer: OptimizerSettings = OptimizerSettings()
    batch: int = 192
    held_out_clips: int = 64
    sample_clips: int = 4
    dtype: Dtype = "bfloat16"
    compile: bool = True

    @model_validator(mode="after")
    def _of_one_length(self) -> SectionConfig:
        own = {schedule for _, _, schedule in (share.partition(" ") for share in self.shares) if schedule}
        try:
            made = {name: parse(name).generated for name in (*self.schedules.values(), *sorted(own))}
        except ScheduleError as error:
            raise ValueError(str(error)) from error
        if len(set(made.values())) != 1:
            several = ", ".join(f"{name} makes {frames}" for name, frames in made.items())
            raise ValueError(f"sections of one training are of one length: {several}")
        return self

    @model_validator(mode="after")
    def _can_be_planned(self) -> SectionConfig:
        if not sum(self.shares.values()) > 0 or min(self.shares.values()) < 0:
            raise ValueError(f"shares are {self.shares}; expected one above 0, and none below")
        for share in self.shares:
            try:
                order, schedule = find_order(share.partition(" ")[0]), self.schedule_of(share)
            except PlanError as error:
                raise ValueError(str(error)) from error
            except KeyError:
                known = ", ".join(self.schedules)
                raise ValueError(f"shares name {share}, which has no schedule; there are {known}") from None
            if not order.serves(parse(schedule)):
                raise ValueError(f"the order {share} cannot serve the schedule {schedule}: it needs {order.needs}")
        new = {*kernels_of({share: self.schedule_of(share) for share in self.shares})} - {*kernels_of(self.schedules)}
        if new:
            raise ValueError(f"shares name schedules with {', '.join(map(str, new))}, a kernel that no order's has")
        if self.key_share and not any(parse(self.schedule_of(share)).ahead for share in self.shares):
            raise ValueError(f"key_share is {self.key_share}, but no schedule sees anything that lies ahead")
        return self

    def schedule_of(self, share: str) -> str:
        """The schedule of a name in `shares`: its own, or else that of its order."""
        order, _, schedule = share.partition(" ")
        return schedule or self.schedules[order_of(order)]

    @property
    def generated(self) -> int:
        """Frames that a section of the schedules makes."""
        return parse(next(iter(self.schedules.values()))).generated


StageConfig = Annotated[CodecConfig | SectionConfig, Field(discriminator="stage")]


TINY_TRANSFORMER = TransformerShape(layers=2, heads=2, head_size=16, feedforward=64, text_width=32, frequencies=32)
TINY_TEXT = TextShape(width=32, layers=1, heads=2, feedforward=64)
TINY_LOOP = LoopConfig(steps=20, warmup=1, log_every=1, evaluate_every=1_000)

PACK_LOOP = LoopConfig(steps=12_000, seconds=900)
TRUE = CorruptionConfig(noise=0.0, noisy_share=0.0)
ANY_NOISE = CorruptionConfig(noise=1.0, noisy_share=1.0)


def _baseline(schedule: str, corruption: CorruptionConfig = TRUE, use: UseConfig = UseConfig()) -> SectionConfig:  # noqa: B008
    """A method that FramePack is compared with: made forward, with a schedule and a history of its own."""
    return SectionConfig(
        schedules={"vanilla": schedule}, shares={"vanilla": 1.0}, key_share=0.0, loop=PACK_LOOP,
        discrete=DiscreteConfig(share=0.0), corruption=corruption, use=use,
    )  # fmt: skip


PRESETS: dict[str, CodecConfig | SectionConfig] = {
    "codec/embedded": CodecConfig(loop=LoopConfig(steps=6_000, seconds=270, hold=0.4, evaluate_every=1_500)),
    "codec/tiny": CodecConfig(
        shape=CodecShape(encoder_width=8, decoder_width=8),
        loop=TINY_LOOP, batch=2, images=9, held_out_clips=1, dtype="float32", compile=False,
    ),
    "base/embedded": SectionConfig(stage="base", loop=LoopConfig(steps=1_500, seconds=120, hold=1.0)),
    "base/tiny": SectionConfig(
        stage="base", shape=TINY_TRANSFORMER, text=TINY_TEXT, loop=TINY_LOOP, batch=2, held_out_clips=2,
        sample_clips=1, starts=(0,), dtype="float32", compile=False,
    ),
    "pack/embedded": SectionConfig(loop=PACK_LOOP, use=UseConfig(gaps="near")),
    "pack/tiny": SectionConfig(
        shape=TINY_TRANSFORMER, text=TINY_TEXT, loop=TINY_LOOP, batch=2, held_out_clips=2,
        sample_clips=1, starts=(0,), dtype="float32", compile=False,
        discrete=DiscreteConfig(sizes=(1, 8), vectors=4096),
    ),
    "pack/corrupted": SectionConfig(
        loop=PACK_LOOP,
        corruption=CorruptionConfig(
            downsample=DownsampleConfig(share=0.1), channels=ChannelConfig(share=0.1),
            resample=ResampleConfig(share=0.1), recycle=RecycleConfig(share=0.3), prefix=PrefixConfig(share=0.15),
        ),
    ),
    # The paper's Table 2. Half of the context is history: nine frames, as many as are made (paper, section 4).
    "pack/repeated-i2v": _baseline("f1k1_g9"),
    "pack/anchor-frame": _baseline("f1k1_x_f8k1_g9"),
    "pack/causal": _baseline("f9k1_g9", use=UseConfig(attention="causal", history_time="clean")),
    "pack/noisy-history": _baseline("f9k1_g9", ANY_NOISE, UseConfig(history_time="noisy", history_sigma=0.1)),
    "pack/history-guidance": _baseline(
        "f9k1_g9",
        CorruptionConfig(noise=1.0, noisy_share=0.5),
        UseConfig(history_time="noisy", history_guidance=1.5, history_without=1.0),
    ),
}  # fmt: skip


def resolve_config(stage: str, preset: str, path: Path | None) -> CodecConfig | SectionConfig:
    """The config of a file, or else of a preset.

    Raises:
        ConfigError: the preset is unknown, or the file is of another stage.
    """
    if path is not None:
        config = read_config(path)
        if config.stage != stage:
            raise ConfigError(f"{path}: this is a config of stage {config.stage!r}, not {stage!r}")
        return config
    try:
        return PRESETS[f"{stage}/{preset}"]
    except KeyError:
        known = ", ".join(name.removeprefix(f"{stage}/") for name in PRESETS if name.startswith(f"{stage}/"))
        raise ConfigError(f"no preset {preset!r} for stage {stage}; there are: {known}") from None


def write_config(config: CodecConfig | SectionConfig, path: Path) -> None:
    """Writes the config as TOML; `read_config` gives it back."""
    path.write_bytes(tomli_w.dumps(config.model_dump(mode="json")).encode())


def read_config(path: Path) -> CodecConfig | SectionConfig:
    """The config in a TOML file.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; the message names each.
    """
    from pydantic import TypeAdapter

    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(StageConfig).validate_python(data)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join([f"{path}: not a training config", *lines])) from error
