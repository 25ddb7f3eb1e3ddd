"""The noise levels that sampling passes: 1 is noise, 0 is clean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "FRAMEPACK_SHIFT",
    "HELIOS_DISTILLED_SHIFT",
    "HELIOS_SHIFT",
    "WAN_SHIFT",
    "DirectShift",
    "LinearShift",
    "Shift",
    "SizeShift",
    "shift_for",
    "shifted",
    "sigmas",
]


def shifted(t: Tensor, shift: float) -> Tensor:
    """Levels moved toward noise: `shift t / (1 + (shift - 1) t)`; 0 and 1 stay."""
    return shift * t / (1.0 + (shift - 1.0) * t)


def sigmas(steps: int, shift: float = 1.0) -> Float[Tensor, " k"]:
    """`steps + 1` levels from 1 to 0: evenly spaced, then shifted.

    A shift above 1 spends more steps near noise; larger pictures need more of it (they hide noise better).

    >>> sigmas(4, shift=3.0)
    tensor([1.0000, 0.9000, 0.7500, 0.5000, 0.0000])
    """
    return shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift).float()


@dataclass(frozen=True, slots=True)
class LinearShift:
    """A shift whose logarithm grows with the number of noisy tokens: `exp(slope * tokens + start)`, at most `most`."""

    slope: float
    start: float
    most: float


@dataclass(frozen=True, slots=True)
class DirectShift:
    """A shift that itself grows with the number of noisy tokens: `slope * tokens + start`."""

    slope: float
    start: float


@dataclass(frozen=True, slots=True)
class SizeShift:
    """A shift that grows with the pixels of an image: `small` up to 480 x 832, `large` from 720 x 1280 on.

    Between these it is on a line.

    >>> WAN_SHIFT.at(480 * 832), WAN_SHIFT.at(720 * 1280), round(WAN_SHIFT.at(544 * 960), 2)
    (3.0, 5.0, 3.47)
    """

    small: float
    large: float

    def at(self, pixels: int) -> float:
        """The shift for images of so many pixels."""
        way = (pixels - 480 * 832) / (720 * 1280 - 480 * 832)
        return self.small + min(max(way, 0.0), 1.0) * (self.large - self.small)


Shift = LinearShift | DirectShift | float

# 0.5 at 256 tokens, 1.15 at 4096, as Flux has it; FramePack cuts the shift at 7.
FRAMEPACK_SHIFT = LinearShift(slope=0.65 / 3840, start=0.5 - 256 * 0.65 / 3840, most=7.0)
HELIOS_SHIFT = LinearShift(FRAMEPACK_SHIFT.slope, FRAMEPACK_SHIFT.start, most=math.inf)
WAN_SHIFT = SizeShift(small=3.0, large=5.0)  # Wan 2.1's, as diffusers' pipelines name it
HELIOS_DISTILLED_SHIFT = DirectShift(FRAMEPACK_SHIFT.slope, FRAMEPACK_SHIFT.start)


def shift_for(tokens: int, rule: Shift) -> float:
    """The shift for a section of so many noisy tokens (history does not count). A plain number is its own rule.

    >>> round(shift_for(9 * 1520, FRAMEPACK_SHIFT), 6), round(shift_for(1520, FRAMEPACK_SHIFT), 2), shift_for(540, 3.0)
    (7.0, 2.04, 3.0)
    >>> round(shift_for(8640, HELIOS_SHIFT), 2), round(shift_for(8640, HELIOS_DISTILLED_SHIFT), 2)
    (6.82, 1.92)
    """
    if isinstance(rule, LinearShift):
        return min(math.exp(rule.slope * tokens + rule.start), rule.most)
    if isinstance(rule, DirectShift):
        return rule.slope * tokens + rule.start
    return rule
