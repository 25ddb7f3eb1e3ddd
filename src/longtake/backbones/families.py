"""The kinds of networks that are known: where each is entered, how it is asked. A kind is a row of functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones import wan
from longtake.backbones.helios import network as helios
from longtake.backbones.hunyuan import network as hunyuan
from longtake.backbones.hunyuan.conditioning import HunyuanConditioning
from longtake.backbones.rotation import rotate_whole_tensors
from longtake.backbones.seams import Seams, install_seams
from longtake.errors import ModelError
from longtake.packing import Packed, Patchify, RopeAxes
from longtake.schedule import Kernel

if TYPE_CHECKING:
    from longtake.backbones.backbone import Backbone

__all__ = ["Conditioning", "Family", "beside", "family_of"]

# What a network is told of a prompt. Wan's and Helios' are told the text tokens alone, Wan's image-to-video networks an
# image, too.
Conditioning = Tensor | HunyuanConditioning | wan.WanConditioning


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of network, as functions of its transformer."""

    name: str
    install: Callable[[Any], Seams]
    begin_history: Callable[[Any, Iterable[Kernel], int], None]  # weights for kernels of latents of so many channels
    patchify: Callable[[Any], Patchify]  # those weights, as they are at this moment
    rope_axes: Callable[[Any], RopeAxes]
    patch: Callable[[Any], nn.Module]  # its patch embedding
    bring: Callable[[Any, Any, torch.device], Any]  # what it is told of a prompt, to where it reads it
    velocity: Callable[[Backbone, Tensor, Tensor, Any, Packed], Tensor]


def beside(told: Conditioning) -> int:
    """How many tokens of what it is told a network's blocks see beside those of the video; but for Hunyuan's none."""
    if not isinstance(told, HunyuanConditioning):
        return 0
    return told.text.shape[1] + (0 if told.image is None else told.image.shape[1])


def family_of(transformer: nn.Module) -> Family:
    """The kind that a transformer is of.

    Raises:
        ModelError: it is of none that is known.
    """
    for kind, family in _FAMILIES.items():
        if isinstance(transformer, kind):
            return family
    known = ", ".join(kind.__name__ for kind in _FAMILIES)
    raise ModelError(f"{type(transformer).__name__} is not a network that longtake knows; it knows {known}")


def _install_wan(transformer: WanTransformer3DModel) -> Seams:
    seams = install_seams(transformer, wan.SEAMS)
    rotate_whole_tensors(transformer, seams)
    return seams


def _begin_wan(transformer: WanTransformer3DModel, kernels: Iterable[Kernel], channels: int) -> None:
    if not hasattr(transformer, "history_patch_embed"):
        transformer.history_patch_embed = Patchify(wan.known_frames(transformer), kernels, channels)


def _ask_wan(
    backbone: Backbone,
    x: Float[Tensor, "b c t h w"],
    sigma: Float[Tensor, " b"],
    told: Tensor | wan.WanConditioning,
    packed: Packed,
) -> Float[Tensor, "b c t h w"]:
    s, level = backbone.settings, sigma.to(x.device, non_blocking=True)
    text = told.to(x.device)  # which was perhaps read on the host
    return wan.velocity(backbone.transformer, backbone.seams, x, level, text, packed, s.history_time, s.attention)


def _begin_hunyuan(transformer: hunyuan.HunyuanTransformer, kernels: Iterable[Kernel], channels: int) -> None:
    hunyuan.begin_history(transformer, kernels)


def _ask_hunyuan(
    backbone: Backbone,
    x: Float[Tensor, "b c t h w"],
    sigma: Float[Tensor, " b"],
    told: HunyuanConditioning,
    packed: Packed,
) -> Float[Tensor, "b c t h w"]:
    s = backbone.settings
    if s.distilled_guidance is not None:
        told = replace(told, guidance=s.distilled_guidance)
    return hunyuan.velocity(backbone.transformer, backbone.seams, x, sigma, told, packed, s.compat)


def _begin_helios(transformer: HeliosTransformer3DModel, kernels: Iterable[Kernel], channels: int) -> None:
    helios.begin_history(transformer, kernels)


def _ask_helios(
    backbone: Backbone, x: Float[Tensor, "b c t h w"], sigma: Float[Tensor, " b"], told: Tensor, packed: Packed
) -> Float[Tensor, "b c t h w"]:
    level = sigma.to(x.device, non_blocking=True)
    return helios.velocity(backbone.transformer, backbone.seams, x, level, told.to(x.device), packed)


def _bring_all(transformer: nn.Module, told: Tensor | wan.WanConditioning, device: torch.device) -> Conditioning:
    return told.to(device)


WAN = Family(
    name="wan",
    install=_install_wan,
    begin_history=_begin_wan,
    patchify=lambda transformer: transformer.history_patch_embed,
    rope_axes=wan.rope_axes,
    patch=lambda transformer: transformer.patch_embedding,
    bring=_bring_all,
    velocity=_ask_wan,
)
HUNYUAN = Family(
    name="hunyuan",
    install=hunyuan.install,
    begin_history=_begin_hunyuan,
    patchify=hunyuan.history_patchify,
    rope_axes=hunyuan.rope_axes,
    patch=lambda transformer: transformer.x_embedder.proj,
    bring=hunyuan.bring,
    velocity=_ask_hunyuan,
)
HELIOS = Family(
    name="helios",
    install=helios.install,
    begin_history=_begin_helios,
    patchify=helios.history_patchify,
    rope_axes=helios.rope_axes,
    patch=lambda transformer: transformer.patch_embedding,
    bring=_bring_all,
    velocity=_ask_helios,
)
_FAMILIES: dict[type[nn.Module], Family] = {
    WanTransformer3DModel: WAN,
    HeliosTransformer3DModel: HELIOS,
    HunyuanVideoFramepackTransformer3DModel: HUNYUAN,
    HunyuanVideoTransformer3DModel: HUNYUAN,
}
