"""A network with all that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.caches import StepCache
from longtake.backbones.codebooks import check_sizes, save_codebooks
from longtake.backbones.codec import Codec
from longtake.backbones.families import WAN, Conditioning, Family, family_of
from longtake.backbones.hunyuan.codec import HunyuanCodec
from longtake.backbones.hunyuan.reader import HunyuanReader
from longtake.backbones.prompts import LentPromptEncoder, PromptEncoder
from longtake.backbones.rotation import can_be_causal
from longtake.backbones.saving import save_model
from longtake.backbones.seams import Seams
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.wan_images import WanReader
from longtake.errors import ModelError
from longtake.packing import Codebook, Discretization, Packed, Patchify, RopeAxes
from longtake.schedule import Kernel, Schedule, parse

__all__ = ["AnyCodec", "Backbone", "Reader", "kernels_of"]

AnyCodec = Codec | HunyuanCodec
Reader = PromptEncoder | LentPromptEncoder | HunyuanReader | WanReader


def kernels_of(schedules: Mapping[str, str]) -> tuple[Kernel, ...]:
    """The distinct kernels that schedules look through.

    >>> kernels_of({"vanilla": "f1k1_x_f16k4f2k2f1k1_g9"})
    (Kernel(t=1, h=2, w=2), Kernel(t=2, h=4, w=4), Kernel(t=4, h=8, w=8))
    """
    found = {kernel for name in schedules.values() for kernel in parse(name).kernels}
    return tuple(sorted(found, key=lambda kernel: (kernel.t, kernel.h, kernel.w)))


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network that predicts velocity from packed history, its codec and its prompt encoder."""

    name: str
    transformer: Any  # of a diffusers class that `family_of` knows
    family: Family
    seams: Seams
    axes: RopeAxes
    codec: AnyCodec
    prompts: Reader
    settings: BackboneSettings
    codebooks: Mapping[int, Codebook] = field(default_factory=dict)  # by their size
    second: Backbone | None = None  # what takes over below the settings' boundary, if the model has two transformers
    cache: StepCache | None = None  # of steps; without one every step is computed
    remarks: tuple[str, ...] = ()  # what became of its LoRAs, and the like: for the user to read

    def __post_init__(self) -> None:
        if self.settings.attention == "causal":
            known = isinstance(self.transformer, WanTransformer3DModel)
            if not known or not can_be_causal(self.transformer):
                raise ModelError(f"{self.name}: its attention is causal, which processors of your own would not know")

    @classmethod
    def assemble(
        cls,
        name: str,
        transformer: Any,
        codec: AnyCodec,
        prompts: Reader,
        settings: BackboneSettings,
        codebooks: Mapping[int, Codebook] | None = None,
    ) -> Backbone:
        """Joins the parts; a transformer without history weights gets fresh ones for its schedules' kernels."""
        family = family_of(transformer)
        family.begin_history(transformer, kernels_of(settings.schedules), codec.channels)
        return cls(
            name=name,
            transformer=transformer,
            family=family,
            seams=family.install(transformer),
            axes=family.rope_axes(transformer),
            codec=codec,
            prompts=prompts,
            settings=settings,
            codebooks=codebooks or {},
        )

    @property
    def patchify(self) -> Patchify:
        """The weights that history is seen through, with the adapters that they have at this moment."""
        return self.family.patchify(self.transformer)

    @property
    def device(self) -> torch.device:
        """Where sections are made."""
        return next(self.family.patch(self.transformer).parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        return next(self.family.patch(self.transformer).parameters()).dtype

    @property
    def grid(self) -> tuple[int, int]:
        """Pixels of one token of the base kernel: height and width of an image are multiples of these."""
        return self.codec.spatial_ratio * self.axes.patch.h, self.codec.spatial_ratio * self.axes.patch.w

    def shift_at(self, schedule: Schedule, h: int, w: int) -> float:
        """The shift of the noise levels for a section of a schedule, its latents of `h` rows and `w` columns."""
        return self.settings.shift_at(schedule.section_tokens(h, w), h * w * self.codec.spatial_ratio**2)

    def save(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Writes a model folder that `load_backbone` and diffusers read.

        Raises:
            ModelError: it is not a Wan model of one transformer, which are what such a folder holds.
            OutputError: the disk is full or the folder cannot be written.
        """
        codec, prompts = self.codec, self.prompts
        single = self.family is WAN and self.second is None
        if not (single and isinstance(codec, Codec) and isinstance(prompts, PromptEncoder)):
            raise ModelError(f"{self.name}: only a Wan model of one transformer, loaded whole, is written as a folder")
        save_model(folder, self.transformer, codec.network, prompts, self.settings, dtype)
        save_codebooks(folder, self.codebooks, codec)

    def discretization(self, sizes: Mapping[str, int], exact_too: bool = False) -> Discretization | None:
        """Rounding to the codebooks of these sizes, by kernel; "*" stands for every other kernel. None for no sizes.

        Raises:
            ModelError: the model has no codebook of a size.
        """
        check_sizes(self.name, sizes, tuple(self.codebooks))
        books = {kernel: self.codebooks[size] for kernel, size in sizes.items()}
        return Discretization(books, exact_too) if books else None

    def velocity(
        self,
        x: Float[Tensor, "b c t h w"],
        sigma: Float[Tensor, " b"] | float,
        told: Conditioning,
        packed: Packed,
        branch: str = "positive",
    ) -> Float[Tensor, "b c t h w"]:
        """The velocity (noise - clean) at `x`, for one noise level or one a sample, in `x`'s dtype.

        Guidance asks several times a step; a step cache keeps what belongs to each `branch` apart.
        """
        if not isinstance(sigma, Tensor):
            sigma = torch.full((x.shape[0],), sigma)  # on the host, where reading it waits for nothing
        with self._branch(branch):
            return self.family.velocity(self, x, sigma, told, packed)

    def bring(self, told: Conditioning) -> Conditioning:
        """What the network is told of a prompt, to where it reads it: once a video, since every step asks for it."""
        return self.family.bring(self.transformer, told, self.device)

    def begin_section(self) -> None:
        """Forgets what a step cache keeps of the section before."""
        if self.cache is not None:
            self.cache.section()

    @contextmanager
    def _branch(self, name: str) -> Iterator[None]:
        if self.cache is None:
            yield
        else:
            with self.cache.branch(name):
                yield
