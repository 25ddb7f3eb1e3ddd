"""Noise that belongs to (seed, section), and the official program's, which belongs to all sections before it too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["NOISES", "noise", "running_noise"]


def noise(
    shape: Sequence[int],
    seed: int,
    section: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    stage: int = 0,
) -> Tensor:
    """Unit noise that depends on the seed and the section alone, not on what was drawn before.

    It is drawn on the CPU in float32, so every device sees the same. Any integer is a seed. What a section draws beside
    the noise that it begins from, it draws in a later `stage`.

    >>> torch.equal(noise((1, 16, 9, 12, 20), seed=7, section=3), noise((1, 16, 9, 12, 20), seed=7, section=3))
    True
    >>> torch.equal(noise((4,), seed=7, section=3), noise((4,), seed=7, section=4))
    False
    """
    name = f"{seed}/{section}/{stage}" if stage else f"{seed}/{section}"
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).to(device=device, dtype=dtype)


def running_noise(
    shape: Sequence[int],
    seed: int,
    section: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The noise that the official program draws for the section made in this place, from one generator a video.

    All sections before it are drawn too, and have to be of its shape.

    >>> generator = torch.Generator().manual_seed(7)
    >>> drawn = [torch.randn(1, 16, 9, 12, 20, generator=generator) for _ in range(4)]
    >>> torch.equal(running_noise((1, 16, 9, 12, 20), seed=7, section=3), drawn[3])
    True
    """
    assert section >= 0
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(tuple(shape), dtype=torch.float32)
    for _ in range(section + 1):
        x.normal_(generator=generator)
    return x.to(device=device, dtype=dtype)


NOISES: dict[str, Callable[..., Tensor]] = {"section": noise, "running": running_noise}
