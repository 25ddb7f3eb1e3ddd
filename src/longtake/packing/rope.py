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


@lru_cache(maxsize=1024)
def _axis(
    positions: tuple[int | float, ...], channels: int, theta: float, size: int, device: torch.device | None
) -> Phases:
    """One axis, pooled: angles and means in float64, the result in float32 on the device. Kept, since it is small."""
    frequencies = 1.0 / theta ** (torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angles = torch.outer(torch.tensor(positions, dtype=torch.float64), frequencies)
    cos, sin = (
        _pooled(repeat(waves, "p e -> p (e two)", two=2), size).to(device=device, dtype=torch.float32)
        for waves in (angles.cos(), angles.sin())
    )
    return Phases(cos, sin)


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
    kernel lacks repeat the last one.

    >>> axes = RopeAxes(24, 20, 20, patch=Kernel(1, 2, 2))
    >>> phases((1, 2, 3, 4), 12, 20, Kernel(4, 8, 8), axes).cos.shape
    torch.Size([6, 64])
    """
    patch = axes.patch
    times = _axis(positions, axes.t, axes.theta, kernel.t // patch.t, device)
    rows = _axis(tuple(range(height // patch.h)), axes.h, axes.theta, kernel.h // patch.h, device)
    columns = _axis(tuple(range(width // patch.w)), axes.w, axes.theta, kernel.w // patch.w, device)
    t, h, w = len(times.cos), len(rows.cos), len(columns.cos)

    def grid(time: Tensor, row: Tensor, column: Tensor) -> Tensor:
        parts = (
            repeat(time, "t e -> (t h w) e", h=h, w=w),
            repeat(row, "h e -> (t h w) e", t=t, w=w),
            repeat(column, "w e -> (t h w) e", t=t, h=h),
        )
        return torch.cat(parts, dim=1)

    return Phases(grid(times.cos, rows.cos, columns.cos), grid(times.sin, rows.sin, columns.sin))
