"""Numbers of pictures that need no network: how sharp they are and which colors they have.

Pictures are uint8 videos "T H W 3".
"""

from __future__ import annotations

import numpy as np

__all__ = ["color_distance", "color_statistics", "luma", "sharpness"]


def luma(video: np.ndarray) -> np.ndarray:
    """Rec. 709 luma as float32 "T H W" in 0..255."""
    return video.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def sharpness(video: np.ndarray) -> float:
    """The mean squared difference of neighboring pixels' luma, in squared steps of 255.

    >>> flat = np.zeros((1, 4, 4, 3), np.uint8)
    >>> sharpness(flat)
    0.0
    """
    y = luma(video)
    return float(np.square(np.diff(y, axis=1)).mean() + np.square(np.diff(y, axis=2)).mean())


def color_statistics(video: np.ndarray) -> np.ndarray:
    """Mean and deviation of red, green and blue: six numbers in 0..255, from histograms, which is exact and quick."""
    levels = np.arange(256.0)
    shares = np.stack([np.bincount(video[..., c].ravel(), minlength=256) for c in range(3)]) * 3 / video.size
    means = shares @ levels
    return np.concatenate([means, np.sqrt((shares * np.square(levels - means[:, None])).sum(1))])


def color_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Euclidean distance between the color statistics of two videos, in steps of 255.

    >>> black, gray = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 10, np.uint8)
    >>> round(color_distance(black, gray), 3)
    17.321
    """
    return float(np.linalg.norm(color_statistics(a) - color_statistics(b)))
