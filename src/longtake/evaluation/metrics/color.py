"""Color statistics: where the colors of a video lie and how they spread."""

from __future__ import annotations

import numpy as np

__all__ = ["color_distance", "color_statistics"]


def color_statistics(video: np.ndarray) -> np.ndarray:
    """Mean and deviation of red, green and blue of a uint8 video "T H W 3": six numbers in 0..255."""
    pixels = video.reshape(-1, 3).astype(np.float64)
    return np.concatenate([pixels.mean(0), pixels.std(0)])


def color_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Euclidean distance between the color statistics of two videos, in steps of 255.

    >>> black, gray = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 10, np.uint8)
    >>> round(color_distance(black, gray), 3)
    17.321
    """
    return float(np.linalg.norm(color_statistics(a) - color_statistics(b)))
