"""The attentions of a network whose tokens are divided: diffusers' processors with an exchange before and one after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.parallel.exchange import Exchange
from longtake.backbones.rotation import RotatingProcessor, rotate
from longtake.backbones.seams import Seams
from longtake.errors import ModelError

__all__ = ["JointProcessor", "SelfProcessor"]

_OTHER = "{} computes attention in a way of its own, which knows nothing of tokens on other devices: remove it first"


class JointProcessor:
    """HunyuanVideo's attention with an exchange before and one after."""

    def __init__(self, exchange: Exchange, kernel: Any) -> None:
        self.exchange = exchange
        self._attention_backend = kernel  # under this name it is set, by whomever

    @classmethod
    def instead_of(cls, replaced: Any, exchange: Exchange) -> JointProcessor:
        """One that computes by the same kernel.

        Raises:
            ModelError: what it replaces is another attention.
        """
        if type(replaced) is not HunyuanVideoAttnProcessor2_0:
            raise ModelError(_OTHER.format(type(replaced).__name__))
        return cls(exchange, replaced._attention_backend)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The attention of this rank's tokens: of latents and of text, which a single-stream block projects as one."""
        n = hidden_states.shape[1]
        streams = (hidden_states, encoder_hidden_states)
        if attn.add_q_proj is None:
            streams = (torch.cat(streams, dim=1),)

        def value() -> Tensor:
            return _projected(streams, (attn.to_v, attn.add_v_proj), (None, None), attn.heads)

        def key() -> Tensor:
            norms = (attn.norm_k, getattr(attn, "norm_added_k", None))
            return _projected(streams, (attn.to_k, attn.add_k_proj), norms, attn.heads, image_rotary_emb)

        def query() -> Tensor:
            norms = (attn.norm_q, getattr(attn, "norm_added_q", None))
            return _projected(streams, (attn.to_q, attn.add_q_proj), norms, attn.heads, image_rotary_emb)

        attended = self.exchanged(value, key, query, attention_mask).flatten(2, 3).to(hidden_states.dtype)
        tokens, text = attended[:, :n], attended[:, n:]
        if getattr(attn, "to_out", None) is not None:
            tokens = attn.to_out[1](attn.to_out[0](tokens))
        if getattr(attn, "to_add_out", None) is not None:
            text = attn.to_add_out(text)
        return tokens, text

    def exchanged(
        self,
        value: Callable[[], Float[Tensor, "b n a e"]],
        key: Callable[[], Float[Tensor, "b n a e"]],
        query: Callable[[], Float[Tensor, "b n a e"]],
        mask: Tensor | None,
    ) -> Float[Tensor, "b n a e"]:
        """What this rank's tokens see of all, by `Exchange.attend`."""
        mask = None if mask is None else self.exchange.in_order_of_ranks(mask)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return dispatch_attention_fn(query, key, value, attn_mask=mask, backend=self._attention_backend)

        return self.exchange.attend(attend, query, key, value)


def _projected(
    streams: Sequence[Tensor],
    layers: Sequence[nn.Module | Any],
    norms: Sequence[nn.Module | None],
    heads: int,
    phases: tuple[Tensor, Tensor] | None = None,
) -> Float[Tensor, "b n a e"]:
    """The queries, keys or values of the streams one after the other; those that have phases, the first, rotated."""
    pieces = []
    for stream, layer, norm in zip(streams, layers, norms, strict=False):
        piece = layer(stream).unflatten(2, (heads, -1))
        pieces.append(piece if norm is None else norm(piece))
    if phases is not None:
        cos, sin = (phase[None, :, None] for phase in phases)
        first, n = pieces[0], cos.shape[1]
        pieces[:1] = [rotate(first[:, :n], cos, sin), first[:, n:]]
    return torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]


class SelfProcessor(RotatingProcessor):
    """Wan's self-attention with two exchanges. Cross-attention needs none: every rank has the whole text."""

    def __init__(self, exchange: Exchange, seams: Seams | None = None) -> None:
        super().__init__(seams)
        self.exchange = exchange

    @classmethod
    def instead_of(cls, replaced: Any, exchange: Exchange) -> SelfProcessor:
        """One that computes by the same kernel, blind where the other is.

        Raises:
            ModelError: what it replaces is another attention.
        """
        if type(replaced) not in (WanAttnProcessor, RotatingProcessor):
            raise ModelError(_OTHER.format(type(replaced).__name__))
        processor = cls(exchange, getattr(replaced, "seams", None))
        processor._attention_backend = replaced._attention_backend
        return processor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attention of this rank's tokens. The tokens that are blind are the first ones of all."""

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return RotatingProcessor.attend(self, query, key, value, mask)

        return self.exchange.attend(attend, lambda: query, lambda: key, lambda: value)
