"""Noise that belongs to (seed, section)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["noise"]


def noise(
    shape: Sequence[int],
    seed: int,
    section: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Unit noise that depends on the seed and the section alone, not on what was drawn before.

    It is drawn on the CPU in float32, so every device sees the same. Any integer is a seed.

    >>> torch.equal(noise((1, 16, 9, 12, 20), seed=7, section=3), noise((1, 16, 9, 12, 20), seed=7, section=3))
    True
    >>> torch.equal(noise((4,), seed=7, section=3), noise((4,), seed=7, section=4))
    False
    """
    digest = hashlib.sha256(f"{seed}/{section}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).to(device=device, dtype=dtype)
