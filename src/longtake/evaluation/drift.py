"""Drift of a video from its start to its end, with the motion that it was paid with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtake.evaluation.embedded import sections_of
from longtake.evaluation.metrics import camera_flow, color_statistics, sharpness
from longtake.pipeline.motion import motion

__all__ = ["Drift", "Interval", "bootstrap", "drift_of", "paired_at_equal_motion"]

SHARE = 0.15  # of a video that its start and its end are (paper, Eq. 7)
STRIDE = 4  # images from one that is measured to the next


@dataclass(frozen=True, slots=True)
class Drift:
    """Start-end contrasts of one video, and its motion.

    The paper's Eq. 7, |M(first 15%) - M(last 15%)|: of sharpness as a share of the start's, of color as the distance
    between the two colors' means and deviations.
    """

    sharpness: float
    color: float  # in steps of 255
    motion: float  # pixels an image
    background: tuple[float, ...]  # horizontal flow of the background in each section, pixels an image


def drift_of(video: np.ndarray, images: int = 36) -> Drift:
    """The drift of a video "T H W 3" whose sections are of so many images after the first one."""
    seen = video[::STRIDE]
    part = max(1, round(SHARE * len(seen)))
    first, last = seen[:part], seen[-part:]
    sections = sections_of(video, images)
    sharp = sharpness(first)
    return Drift(
        sharpness=abs(sharp - sharpness(last)) / max(sharp, 1e-6),
        color=float(np.linalg.norm(color_statistics(first) - color_statistics(last))),
        motion=float(np.mean([motion(section, STRIDE) for section in sections])),
        background=tuple(camera_flow(section) for section in sections),
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the 95% interval of it."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(groups: Sequence[Sequence[float]], draws: int = 4000, seed: int = 0) -> Interval:
    """The mean of all numbers and its percentile interval over groups drawn again: what is in a group stays together.

    >>> bootstrap([[1.0, 1.0], [3.0]])
    Interval(mean=1.6666666666666667, low=1.0, high=3.0)
    """
    sums = np.array([sum(group) for group in groups], dtype=np.float64)
    counts = np.array([len(group) for group in groups])
    drawn = np.random.default_rng(seed).integers(len(groups), size=(draws, len(groups)))
    total = counts[drawn].sum(1)
    means = sums[drawn].sum(1)[total > 0] / total[total > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def paired_at_equal_motion(
    ours: Sequence[Sequence[Drift]], theirs: Sequence[Sequence[Drift]], metric: str, within: float = 1.25
) -> tuple[Interval, int] | None:
    """Ours minus theirs on pairs of the same scene and seed whose motion is alike, and how many pairs those are.

    `ours[scene][seed]`; motion is alike if neither is more than `within` times the other. None if no two pairs are.
    """
    groups = []
    for mine, other in zip(ours, theirs, strict=True):
        pairs = zip(mine, other, strict=True)
        alike = [(a, b) for a, b in pairs if max(a.motion, b.motion) <= within * min(a.motion, b.motion)]
        groups.append([getattr(a, metric) - getattr(b, metric) for a, b in alike])
    count = sum(map(len, groups))
    return (bootstrap(groups), count) if count > 1 else None
