"""Wan's self-attention with its queries and keys rotated as whole tensors, causal if the seams say so.

diffusers writes the two halves of each rotated pair into an empty tensor with a stride. The compiler makes of that one
kernel, fused with the norms, that takes several times as long as its memory traffic; here it is one expression, and
equal to the last bit.

Causal attention between history and section is two attentions instead of a mask: history over history, the section over
all. So it stays with the fast kernels, and costs less than the full one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformer3DModel
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.seams import Seams

__all__ = ["RotatingProcessor", "can_be_causal", "rotate", "rotate_whole_tensors"]


def rotate(x: Float[Tensor, "b n a e"], cos: Float[Tensor, "_ n 1 e"], sin: Float[Tensor, "_ n 1 e"]) -> Tensor:
    """Neighboring channels (u, v) turned by their phase: (u cos - v sin, v cos + u sin), in `x`'s dtype."""
    u, v = x.unflatten(-1, (-1, 2)).unbind(-1)
    return (x * cos + torch.stack([-v, u], dim=-1).flatten(-2) * sin).to(x.dtype)


class RotatingProcessor(WanAttnProcessor):
    """diffusers' processor; only what has phases to rotate by, the self-attention, is computed here.

    Tokens that the seams call blind do not see those after them. `attend` is given all tokens: devices that share one
    sequence put the exchange around it.
    """

    def __init__(self, seams: Seams | None = None) -> None:
        super().__init__()
        self.seams = seams

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The attention of diffusers' processor, the same arguments and the same numbers."""
        if rotary_emb is None or encoder_hidden_states is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        if attn.fused_projections:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        query, key, value = (
            part.unflatten(2, (attn.heads, -1)) for part in (attn.norm_q(query), attn.norm_k(key), value)
        )
        query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
        attended = self.attend(query, key, value, attention_mask)
        return attn.to_out[1](attn.to_out[0](attended.flatten(2, 3).type_as(query)))

    def attend(
        self,
        query: Float[Tensor, "b n a e"],
        key: Float[Tensor, "b n a e"],
        value: Float[Tensor, "b n a e"],
        mask: Tensor | None = None,
    ) -> Float[Tensor, "b n a e"]:
        """What all tokens see; the blind ones do not see those after them."""
        blind = 0 if self.seams is None else self.seams.blind
        if not blind:
            return self._attend(query, key, value, mask)
        first = self._attend(query[:, :blind], key[:, :blind], value[:, :blind])
        return torch.cat([first, self._attend(query[:, blind:], key, value)], dim=1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )


def rotate_whole_tensors(transformer: WanTransformer3DModel, seams: Seams | None = None) -> None:
    """Gives every self-attention that still has diffusers' own processor this one."""
    for attention in _self_attentions(transformer):
        if type(attention.processor) is WanAttnProcessor:
            attention.set_processor(RotatingProcessor(seams))  # pyright: ignore[reportArgumentType]  (lists diffusers' own)


def can_be_causal(transformer: WanTransformer3DModel) -> bool:
    """True if every self-attention asks the seams which tokens are blind."""
    processors = [attention.processor for attention in _self_attentions(transformer)]
    return all(isinstance(p, RotatingProcessor) and p.seams is not None for p in processors)


def _self_attentions(transformer: WanTransformer3DModel) -> Iterator[WanAttention]:
    return (m for m in transformer.modules() if isinstance(m, WanAttention) and not m.is_cross_attention)
