"""Rotary phases of tokens that stand for many latent pixels (paper, section 3.1: RoPE alignment)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from longtake.schedule import Kernel

__all__ = ["Phases", "RopeAxes", "phases"]


@dataclass(frozen=True, slots=True)
class RopeAxes:
    """How a backbone's attention head is divided among time, rows and columns.

    Rows and columns are counted in units of the backbone's own patch.
    """

    t: int
    h: int
    w: int
    patch: Kernel
    theta: float = 10_000.0

    @property
    def head_size(self) -> int:
        """Channels of one head."""
        return self.t + self.h + self.w


@dataclass(frozen=True, slots=True)
class Phases:
    """Cosines and sines for each token; each frequency stands twice, for the two halves of its pair."""

    cos: Float[Tensor, "n e"]
    sin: Float[Tensor, "n e"]


def _pooled(table: Float[Tensor, "p e"], size: int) -> Float[Tensor, "q e"]:
    """Means of `size` rows at a time, the last row repeated until the last mean is of `size` rows too."""
    if size == 1:
        return table
    missing = -len(table) % size
    table = torch.cat([table, table[-1:].expand(missing, -1)])
    return rearrange(table, "(q size) e -> q size e", size=size).mean(1)


def _axis(positions: Float[Tensor, " p"], channels: int, theta: float, size: int) -> tuple[Tensor, Tensor]:
    """Pooled cosines and sines "q channels" of one axis, in float64."""
    frequencies = 1.0 / theta ** (torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angles = torch.outer(positions, frequencies)
    return _pooled(repeat(angles.cos(), "p e -> p (e two)", two=2), size), _pooled(
        repeat(angles.sin(), "p e -> p (e two)", two=2), size
    )


@lru_cache(maxsize=128)
def phases(
    positions: tuple[int | float, ...],
    height: int,
    width: int,
    kernel: Kernel,
    axes: RopeAxes,
    device: torch.device | None = None,
) -> Phases:
    """The phases of the frames at these positions, on a latent grid, seen through `kernel`.

    Cosines and sines of the full grid are averaged over each kernel and not normalized again, as in FramePack and
    Helios. A grid's phases are a product of axes, so each axis is averaged alone. Frames, rows and columns that a
    kernel lacks repeat the last one. The tables are kept: a section asks once, its steps share them.

    >>> axes = RopeAxes(24, 20, 20, patch=Kernel(1, 2, 2))
    >>> phases((1, 2, 3, 4), 12, 20, Kernel(4, 8, 8), axes).cos.shape
    torch.Size([6, 64])
    >>> phases((1, 2, 3, 4), 12, 20, Kernel(4, 8, 8), axes) is phases((1, 2, 3, 4), 12, 20, Kernel(4, 8, 8), axes)
    True
    """
    patch = axes.patch
    times = torch.tensor(positions, dtype=torch.float64)
    rows = torch.arange(height // patch.h, dtype=torch.float64)
    columns = torch.arange(width // patch.w, dtype=torch.float64)
    tables = (
        _axis(times, axes.t, axes.theta, kernel.t // patch.t),
        _axis(rows, axes.h, axes.theta, kernel.h // patch.h),
        _axis(columns, axes.w, axes.theta, kernel.w // patch.w),
    )
    t, h, w = (len(cos) for cos, _ in tables)
    cos, sin = (
        torch.cat(
            [
                repeat(tables[0][which], "t e -> (t h w) e", h=h, w=w),
                repeat(tables[1][which], "h e -> (t h w) e", t=t, w=w),
                repeat(tables[2][which], "w e -> (t h w) e", t=t, h=h),
            ],
            dim=1,
        ).to(device=device, dtype=torch.float32)
        for which in (0, 1)
    )
    return Phases(cos, sin)
