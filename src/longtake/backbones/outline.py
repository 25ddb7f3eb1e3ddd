"""What a model says of itself before its weights are loaded, and how they are to be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from longtake.backbones.helios.sampling import read_sampling, scheduled
from longtake.backbones.hunyuan.buckets import Bucket
from longtake.backbones.lora.asked import Lora
from longtake.backbones.parts import FoundModel
from longtake.backbones.placement.backends import AnyStorage
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.skeletons import placed
from longtake.backbones.visiting import visiting
from longtake.backbones.weights import read_json
from longtake.errors import ModelError
from longtake.flow import Sampling
from longtake.schedule import Kernel

__all__ = ["SETTINGS", "Loaded", "Outline", "load_settings", "settings_of"]

SETTINGS = "longtake.json"
Encoder = TypeVar("Encoder", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Outline:
    """What a model says of itself before its weights are loaded."""

    settings: BackboneSettings
    temporal_ratio: int
    spatial_ratio: int
    channels: int  # of a latent
    patch: Kernel
    kernels: tuple[Kernel, ...]  # that it has history weights for
    codebooks: tuple[int, ...]  # words of each codebook
    family: str
    buckets: tuple[Bucket, ...] = ()  # sizes that it was made for; empty: that of the settings


@dataclass(frozen=True, slots=True)
class Loaded:
    """How a model is to be loaded, beside its name."""

    device: torch.device | str = "cpu"
    dtype: torch.dtype | None = None  # float32 on a CPU (bfloat16 is a hundred times slower there), bfloat16 elsewhere
    places: Mapping[str, Path] = field(default_factory=dict)  # parts that are elsewhere, by name
    loras: tuple[Lora, ...] = ()
    storage: AnyStorage = "full"  # of the block matrices; any other is lossy
    fp8: bool = (
        False  # the blocks' matrix products are computed in eight bits: lossy, and faster from Ada and Hopper on
    )
    rest: bool = False  # transformers stay in host memory, text encoders on disk, until they are wanted
    visits: bool = False  # encoders of prompts and pictures stay on the host, and visit the device layer by layer

    @property
    def computes_in(self) -> torch.dtype:
        """The type of the network's weights."""
        return self.dtype or (torch.float32 if torch.device(self.device).type == "cpu" else torch.bfloat16)

    @property
    def reads_in(self) -> torch.dtype:
        """The type of HunyuanVideo's encoders: float16 on a GPU, as the official program has them."""
        return self.computes_in if torch.device(self.device).type == "cpu" else torch.float16

    def to_read(self, encoder: Encoder) -> Encoder:
        """An encoder of prompts or pictures, from where it was loaded to where it is asked."""
        return visiting(encoder, self.device) if self.visits else placed(encoder, self.device)

    @property
    def home(self) -> torch.device:
        """Where the transformer is loaded to."""
        return torch.device("cpu" if self.rest else self.device)


def settings_of(found: FoundModel) -> BackboneSettings:
    """The settings of a model: those in the `longtake.json` of its folder, else those of its row and its scheduler."""
    own = found.row.settings
    if found.folder and (found.folder / SETTINGS).is_file():
        return load_settings(found.folder)
    return own if own.sampling is None else _scheduled(own, own.sampling, found.path_of("scheduler"))


def _scheduled(own: BackboneSettings, sampling: Sampling, scheduler: Path) -> BackboneSettings:
    """The settings of a row, sampled as a model's folder says."""
    whole = (scheduler.parent / "model_index.json").is_file()
    sampling = read_sampling(scheduler.parent) if whole else scheduled(sampling, scheduler)
    usual = sampling.usual
    return own.model_copy(
        update={"sampling": sampling, "steps": sampling.steps, "solver": usual.solver, "shift": usual.shift}
    )


def load_settings(folder: Path) -> BackboneSettings:
    """The settings in a model folder, or the defaults where it has none."""
    path = folder / SETTINGS
    if not path.is_file():
        return BackboneSettings()
    try:
        return BackboneSettings.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"{path}: {place}: {message}" if place else f"{path}: {message}") from error
