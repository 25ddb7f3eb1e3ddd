"""Wan: where its seams are, and its velocity."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.seams import Seams, SeamSpec
from longtake.packing import Packed, RopeAxes
from longtake.schedule import Kernel

__all__ = ["SEAMS", "TIMESTEPS", "Attention", "HistoryTime", "rope_axes", "velocity"]

HistoryTime = Literal["same", "clean", "noisy"]
Attention = Literal["full", "causal"]

SEAMS = SeamSpec(patch="patch_embedding", rope="rope", out="proj_out")
TIMESTEPS = 1000.0  # what Wan calls pure noise (its scheduler's `num_train_timesteps`)


def rope_axes(transformer: WanTransformer3DModel) -> RopeAxes:
    """How its heads are divided: rows and columns a third each, in whole pairs, time the rest.

    >>> rope_axes(WanTransformer3DModel(num_attention_heads=1, attention_head_dim=64, ffn_dim=8, num_layers=0))
    RopeAxes(t=24, h=20, w=20, patch=Kernel(t=1, h=2, w=2), theta=10000.0)
    """
    config = transformer.config
    size = config["attention_head_dim"]
    side = 2 * (size // 6)
    return RopeAxes(size - 2 * side, side, side, patch=Kernel(*config["patch_size"]))


def velocity(
    transformer: WanTransformer3DModel,
    seams: Seams,
    x: Float[Tensor, "b c t h w"],
    sigma: Float[Tensor, " b"],
    text: Float[Tensor, "b s d"],
    packed: Packed,
    history_time: HistoryTime = "same",
    attention: Attention = "full",
) -> Float[Tensor, "b c t h w"]:
    """The network's velocity (noise - clean) at `x`, in `x`'s dtype.

    History tokens are told the sigma of the section's own (`history_time="same"`, as FramePack does), 0 ("clean", as
    Helios does), or how much noise is in them ("noisy", as Diffusion Forcing does). With `attention="causal"` they do
    not see the section's own; what they say to it is then the same at every step if their time is, too.
    """
    timestep = TIMESTEPS * sigma.float()
    if history_time != "same":
        told = packed.sigma if history_time == "noisy" else torch.zeros_like(packed.sigma)
        noisy = timestep[:, None].expand(-1, len(packed.target_cos))
        timestep = torch.cat([TIMESTEPS * told.expand(len(sigma), -1), noisy], dim=1)
    dtype = transformer.patch_embedding.weight.dtype
    with seams.use(packed, causal=attention == "causal"):
        (v,) = transformer(x.to(dtype), timestep, text.to(dtype), return_dict=False)
    return v.to(x.dtype)
