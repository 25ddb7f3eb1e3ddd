"""Wan: where its seams are, and its velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.seams import Seams, SeamSpec
from longtake.packing import Packed, RopeAxes
from longtake.schedule import Kernel

__all__ = [
    "SEAMS",
    "TIMESTEPS",
    "Attention",
    "HistoryTime",
    "WanConditioning",
    "frames_beside",
    "known_frames",
    "rope_axes",
    "velocity",
]

HistoryTime = Literal["same", "clean", "noisy"]
Attention = Literal["full", "causal"]

SEAMS = SeamSpec(patch="patch_embedding", rope="rope", out="proj_out")
TIMESTEPS = 1000.0  # what Wan calls pure noise (its scheduler's `num_train_timesteps`)
MASK = 4  # channels of an image-to-video network that say which images of a latent frame are given


@dataclass(frozen=True, slots=True)
class WanConditioning:
    """What an image-to-video network is told beside noise, time and history."""

    text: Float[Tensor, "b s d"]
    image: Float[Tensor, "b m k"]  # tokens of the start image, of CLIP
    blank: Float[Tensor, " c"]  # the latent of an image that is not given

    def to(self, device: torch.device) -> WanConditioning:
        """The same on a device."""
        return WanConditioning(self.text.to(device), self.image.to(device), self.blank.to(device))


def frames_beside(transformer: WanTransformer3DModel) -> bool:
    """True for image-to-video networks: they read given frames beside the noise, in channels of their own."""
    config = transformer.config
    return config["in_channels"] == 2 * config["out_channels"] + MASK


def known_frames(transformer: WanTransformer3DModel) -> nn.Conv3d:
    """The patch embedding as it reads latent frames that are known: what weights for history begin with.

    A network that reads given frames beside the noise has channels for the noise, a mask and the given frame,
    W = [W_x, W_mask, W_given]. Where a frame is known all of it is given, and nothing of it is noise:

        [W_x, W_mask, W_given] [z, 1, z] + b = (W_x + W_given) z + (W_mask 1 + b)
    """
    conv = transformer.patch_embedding
    if not frames_beside(transformer):
        return conv
    channels, (t, h, w) = transformer.config["out_channels"], transformer.config["patch_size"]
    assert conv.bias is not None
    x, mask, given = conv.weight.detach().split([channels, MASK, channels], dim=1)
    known = nn.Conv3d(channels, conv.out_channels, (t, h, w), stride=(t, h, w), device="meta")
    known.weight = nn.Parameter(x + given)
    known.bias = nn.Parameter(conv.bias.detach() + mask.sum(dim=(1, 2, 3, 4)))
    return known


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
    told: Float[Tensor, "b s d"] | WanConditioning,
    packed: Packed,
    history_time: HistoryTime = "same",
    attention: Attention = "full",
) -> Float[Tensor, "b c t h w"]:
    """The network's velocity (noise - clean) at `x`, in `x`'s dtype.

    History tokens are told the sigma of the section's own (`history_time="same"`, as FramePack does), 0 ("clean", as
    Helios does), or how much noise is in them ("noisy", as Diffusion Forcing does). With `attention="causal"` they do
    not see the section's own; what they say to it is then the same at every step if their time is, too.
    """
    image, text = (told.image, told.text) if isinstance(told, WanConditioning) else (None, told)
    noisy = x if isinstance(told, Tensor) else _nothing_beside(x, told.blank)
    timestep = TIMESTEPS * sigma.float()
    if history_time != "same":
        level = packed.sigma if history_time == "noisy" else torch.zeros_like(packed.sigma)
        own = timestep[:, None].expand(-1, len(packed.target_cos))
        timestep = torch.cat([TIMESTEPS * level.expand(len(sigma), -1), own], dim=1)
    dtype = transformer.patch_embedding.weight.dtype
    with seams.use(packed, causal=attention == "causal"):
        (v,) = transformer(
            noisy.to(dtype),
            timestep,
            text.to(dtype),
            encoder_hidden_states_image=None if image is None else image.expand(len(x), -1, -1).to(dtype),
            return_dict=False,
        )
    return v.to(x.dtype)


def _nothing_beside(x: Float[Tensor, "b c t h w"], blank: Float[Tensor, " c"]) -> Float[Tensor, "b d t h w"]:
    """Noise with nothing given beside it: frames that are known are history."""
    b, _, t, h, w = x.shape
    given = blank.to(x)[None, :, None, None, None].expand(b, -1, t, h, w)
    return torch.cat([x, x.new_zeros(b, MASK, t, h, w), given], dim=1)
