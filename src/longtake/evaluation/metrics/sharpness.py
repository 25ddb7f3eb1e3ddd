"""Sharpness: the energy of image gradients."""

from __future__ import annotations

import numpy as np

__all__ = ["luma", "sharpness"]


def luma(video: np.ndarray) -> np.ndarray:
    """Rec. 709 luma of a uint8 video "T H W 3" as float32 "T H W" in 0..255."""
    return video.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def sharpness(video: np.ndarray) -> float:
    """The mean squared difference of neighboring pixels' luma, in squared steps of 255.

    >>> flat = np.zeros((1, 4, 4, 3), np.uint8)
    >>> sharpness(flat)
    0.0
    """
    y = luma(video)
    return float(np.square(np.diff(y, axis=1)).mean() + np.square(np.diff(y, axis=2)).mean())
