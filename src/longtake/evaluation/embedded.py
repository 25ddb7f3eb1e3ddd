"""The quality bars of the embedded model on held-out toybox clips: what is measured, free of how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtake.evaluation.metrics import background_flow, color_distance, displacement, sharpness

__all__ = ["SectionNumbers", "camera_agreement", "section_numbers", "sections_of"]


@dataclass(frozen=True, slots=True)
class SectionNumbers:
    """One section of one video."""

    sharpness: float
    color_distance: float  # to the first section of the real clip
    motion: float  # pixels an image
    background: float  # horizontal flow of the background, pixels an image


def sections_of(video: np.ndarray, images: int = 36) -> list[np.ndarray]:
    """The sections of a video "T H W 3" of 1 + n * images images, without its first image."""
    return [video[1 + images * k : 1 + images * (k + 1)] for k in range((len(video) - 1) // images)]


def section_numbers(section: np.ndarray, reference: np.ndarray) -> SectionNumbers:
    """Everything that is read from one section; `reference` is the real section that colors are compared with."""
    return SectionNumbers(
        sharpness(section), color_distance(section, reference), displacement(section), background_flow(section)
    )


def camera_agreement(backgrounds: Sequence[float], commands: Sequence[str], moving: float = 0.15) -> dict[str, float]:
    """The share of sections whose background moves as the prompt says, by command and in all.

    An orbit to the left moves the background of the picture to the left (a negative flow), one to the right
    moves it to the right; `still` means less than `moving` pixels an image. Other commands are not judged.
    """
    as_told = {"left": lambda v: v < -moving, "right": lambda v: v > moving, "still": lambda v: abs(v) <= moving}
    verdicts = [(c, as_told[c](v)) for v, c in zip(backgrounds, commands, strict=True) if c in as_told]
    table = {
        c: float(np.mean([ok for k, ok in verdicts if k == c])) for c in as_told if any(k == c for k, _ in verdicts)
    }
    return {**table, "all": float(np.mean([ok for _, ok in verdicts])) if verdicts else float("nan")}
