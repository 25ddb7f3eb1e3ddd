"""A network with all that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.codebooks import check_sizes, save_codebooks
from longtake.backbones.codec import Codec
from longtake.backbones.prompts import PromptEncoder
from longtake.backbones.rotation import can_be_causal, rotate_whole_tensors
from longtake.backbones.saving import save_model
from longtake.backbones.seams import Seams, install_seams
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.wan import SEAMS, rope_axes, velocity
from longtake.errors import ModelError
from longtake.packing import Codebook, Discretization, Packed, Patchify, RopeAxes
from longtake.schedule import Kernel, parse

__all__ = ["Backbone", "kernels_of"]


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
    transformer: WanTransformer3DModel
    seams: Seams
    patchify: Patchify  # also a child of the transformer, `history_patch_embed`
    axes: RopeAxes
    codec: Codec
    prompts: PromptEncoder
    settings: BackboneSettings
    codebooks: Mapping[int, Codebook] = field(default_factory=dict)  # by their size

    def __post_init__(self) -> None:
        if self.settings.attention == "causal" and not can_be_causal(self.transformer):
            raise ModelError(f"{self.name}: its attention is causal, which processors of your own would not know")

    @classmethod
    def assemble(
        cls,
        name: str,
        transformer: WanTransformer3DModel,
        codec: Codec,
        prompts: PromptEncoder,
        settings: BackboneSettings,
        codebooks: Mapping[int, Codebook] | None = None,
    ) -> Backbone:
        """Joins the parts; a transformer without history weights gets fresh ones for its schedules' kernels."""
        if not hasattr(transformer, "history_patch_embed"):
            kernels = kernels_of(settings.schedules)
            transformer.history_patch_embed = Patchify(transformer.patch_embedding, kernels, codec.channels)
        seams = install_seams(transformer, SEAMS)
        rotate_whole_tensors(transformer, seams)
        return cls(
            name=name,
            transformer=transformer,
            seams=seams,
            patchify=transformer.history_patch_embed,
            axes=rope_axes(transformer),
            codec=codec,
            prompts=prompts,
            settings=settings,
            codebooks=codebooks or {},
        )

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.transformer.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        return self.transformer.patch_embedding.weight.dtype

    @property
    def grid(self) -> tuple[int, int]:
        """Pixels of one token of the base kernel: height and width of an image are multiples of these."""
        return self.codec.spatial_ratio * self.axes.patch.h, self.codec.spatial_ratio * self.axes.patch.w

    def save(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Writes a model folder that `load_backbone` and diffusers read.

        Raises:
            OutputError: the disk is full or the folder cannot be written.
        """
        save_model(folder, self.transformer, self.codec.network, self.prompts, self.settings, dtype)
        save_codebooks(folder, self.codebooks, self.codec)

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
        text: Float[Tensor, "b s d"],
        packed: Packed,
    ) -> Float[Tensor, "b c t h w"]:
        """The velocity (noise - clean) at `x`, for one noise level or one a sample, in `x`'s dtype."""
        if not isinstance(sigma, Tensor):
            sigma = torch.full((x.shape[0],), sigma, device=x.device)
        s = self.settings
        return velocity(self.transformer, self.seams, x, sigma, text, packed, s.history_time, s.attention)
