"""Attention whose score matrix is never whole: some queries of one head at a time.

A device without a fused kernel for a type (bf16 before Ampere, for one) falls back to PyTorch's plain formula, whose
score matrix has heads x tokens x tokens numbers: 30 GiB for one section of the 13 B model, whatever the card. Each row
of the scores is a softmax of its own, so that a few rows at a time give the same result in bounded memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["attend_in_tiles"]

# Alive at once in the plain formula, all of them float32: scores, what a mask makes of them, their softmax.
_SCORES_ALIVE, _SCORE_BYTES = 3, 4
TILE_BYTES = 256 * 2**20  # under what a block of the 13 B model has alive anyway


def attend_in_tiles(
    query: Float[Tensor, "b n a e"],
    key: Float[Tensor, "b m a e"],
    value: Float[Tensor, "b m a e"],
    mask: Tensor | None = None,
    scale: float | None = None,
    limit: int = TILE_BYTES,
) -> Float[Tensor, "b n a e"]:
    """Attention, some queries of one head at a time, so that its scores take no more than `limit` bytes.

    Args:
        query: of the tokens that look.
        key: of the tokens that are looked at.
        value: the same tokens'.
        mask: broadcastable to "b a n m"; True where a query sees a key, or a number added to its score. "b m" is read
            as what all queries of a sample see, as diffusers does.
        scale: of the scores, one over the root of the head size if not given.
        limit: bytes; one query at least is computed at a time.
    """
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, None]
    b, n, heads, _ = query.shape
    rows = max(1, limit // (b * key.shape[1] * _SCORES_ALIVE * _SCORE_BYTES))
    out = torch.empty_like(query)
    for head in range(heads):
        k, v = key[:, :, head], value[:, :, head]
        for start in range(0, n, rows):
            tile = slice(start, start + rows)
            seen = None if mask is None else _part(_part(mask, 1, slice(head, head + 1)), 2, tile)
            # "b 1 n e": plain SDPA, so that a device's fused kernel is used where there is one after all.
            out[:, tile, head] = functional.scaled_dot_product_attention(
                query[:, None, tile, head], k[:, None], v[:, None], attn_mask=seen, scale=scale
            )[:, 0]
    return out


def _part(mask: Tensor, dim: int, part: slice) -> Tensor:
    """A part along one dimension of a mask, all of it where it is the same for all."""
    return mask if mask.shape[dim] == 1 else mask[(slice(None),) * dim + (part,)]
