"""Wan's self-attention with its queries and keys rotated as whole tensors.

diffusers writes the two halves of each rotated pair into an empty tensor with a stride. The compiler makes of that one
kernel, fused with the norms, that takes several times as long as its memory traffic; here it is one expression, and
equal to the last bit.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor

__all__ = ["RotatingProcessor", "rotate", "rotate_whole_tensors"]


def rotate(x: Float[Tensor, "b n a e"], cos: Float[Tensor, "_ n 1 e"], sin: Float[Tensor, "_ n 1 e"]) -> Tensor:
    """Neighboring channels (u, v) turned by their phase: (u cos - v sin, v cos + u sin), in `x`'s dtype."""
    u, v = x.unflatten(-1, (-1, 2)).unbind(-1)
    return (x * cos + torch.stack([-v, u], dim=-1).flatten(-2) * sin).to(x.dtype)


class RotatingProcessor(WanAttnProcessor):
    """diffusers' processor; only what has phases to rotate by, the self-attention, is computed here."""

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The attention of diffusers' processor, the same arguments and the same numbers."""
        if rotary_emb is None or encoder_hidden_states is not None or attn.fused_projections:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        query, key, value = (
            part.unflatten(2, (attn.heads, -1))
            for part in (
                attn.norm_q(attn.to_q(hidden_states)),
                attn.norm_k(attn.to_k(hidden_states)),
                attn.to_v(hidden_states),
            )
        )
        attended = dispatch_attention_fn(
            rotate(query, *rotary_emb),
            rotate(key, *rotary_emb),
            value,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return attn.to_out[1](attn.to_out[0](attended.flatten(2, 3).type_as(query)))


def rotate_whole_tensors(transformer: WanTransformer3DModel) -> None:
    """Gives every self-attention that still has diffusers' own processor this one."""
    for attention in (m for m in transformer.modules() if isinstance(m, WanAttention)):
        if not attention.is_cross_attention and type(attention.processor) is WanAttnProcessor:
            attention.set_processor(RotatingProcessor())  # pyright: ignore[reportArgumentType]  (lists diffusers' own)
