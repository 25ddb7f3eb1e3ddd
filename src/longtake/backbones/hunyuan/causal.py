"""Attention that is causal in frames, without a mask.

The mid blocks of the codec let the positions of frame t see those of frames 0 to t. diffusers says so by a mask of
(t h w)^2 numbers: at 640 x 608 and five frames 1.8 GB in half precision, made by way of float32. Here each frame is one
call on the keys that it sees: the same softmaxes, and for five frames 60% of the products.
"""

from __future__ import annotations

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoMidBlock3D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["attend_by_frame"]

_NAME = "longtake"


class _MidHook(ModelHook):
    """The block's own order of layers, with attention by frames."""

    def new_forward(self, module: HunyuanVideoMidBlock3D, hidden_states: Tensor) -> Tensor:
        x = module.resnets[0](hidden_states)
        for attention, resnet in zip(module.attentions, module.resnets[1:], strict=True):
            x = resnet(_attend(attention, x) if isinstance(attention, Attention) else x)
        return x


def attend_by_frame(block: nn.Module) -> None:
    """Makes a codec's mid block call attention once for each frame. Doing it twice changes nothing more."""
    registry = HookRegistry.check_if_exists_or_initialize(block)
    if registry.get_hook(_NAME) is None:
        registry.register_hook(_MidHook(), _NAME)


def _attend(attention: Attention, x: Float[Tensor, "b d t h w"]) -> Float[Tensor, "b d t h w"]:
    """One head over all positions of the frames up to each one's own, added to `x`."""
    _, _, frames, h, w = x.shape
    tokens = rearrange(attention.get_submodule("group_norm")(x.flatten(2)), "b d n -> b 1 n d")
    q, k, v = (attention.get_submodule(name)(tokens) for name in ("to_q", "to_k", "to_v"))
    seen = []
    for frame, query in enumerate(q.split(h * w, dim=2)):
        past = slice((frame + 1) * h * w)
        seen.append(scaled_dot_product_attention(query, k[:, :, past], v[:, :, past]))
    out = attention.get_submodule("to_out.0")(torch.cat(seen, dim=2))
    return x + rearrange(out, "b 1 (t h w) d -> b d t h w", t=frames, h=h, w=w)
