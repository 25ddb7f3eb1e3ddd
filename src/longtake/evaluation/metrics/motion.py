"""Motion: how far the picture moves, by dense optical flow (OpenCV's DIS; extra `eval`)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from longtake.errors import ConfigError
from longtake.media.statistics import luma
from longtake.pipeline.motion import optical_flow

__all__ = ["background_flow", "camera_flow", "displacement", "flows"]


def flows(video: np.ndarray, stride: int = 1) -> np.ndarray:
    """Optical flow between images `stride` apart: float32 "n H W 2" (x to the right, y down), in pixels.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError("optical flow needs OpenCV: pip install 'longtake[eval]'") from error
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = luma(video).round().astype(np.uint8)[::stride]
    return np.stack([finder.calc(a, b, np.zeros((*a.shape, 2), np.float32)) for a, b in pairwise(gray)])


def displacement(video: np.ndarray) -> float:
    """The mean length of the flow between neighboring images, in pixels an image: the motion number."""
    return float(np.linalg.norm(flows(video), axis=-1).mean())


def background_flow(video: np.ndarray, band: float = 0.45, stride: int = 2) -> float:
    """The median horizontal flow of the upper part of the picture where it has texture, in pixels an image.

    The upper `band` of the picture shows walls and sky; toys stand lower. A camera that turns or orbits so that the
    background moves to the right gives a positive number.
    """
    height = round(video.shape[1] * band)
    upper = video[:, :height]
    y = luma(upper)[::stride][:-1]
    textured = np.abs(np.gradient(y, axis=2)) > 2.0
    found = flows(upper, stride)[..., 0]
    return float(np.median(found[textured]) / stride) if textured.any() else 0.0


def camera_flow(video: np.ndarray, band: float = 0.45, stride: int = 4) -> float:
    """What `background_flow` says, by the flow that the meter uses: without OpenCV, of one pair in `stride` images.

    Two images lie between those of a pair, so that slow moves show.
    """
    height = round(video.shape[1] * band)
    before, after = video[:-2:stride, :height], video[2::stride, :height]
    flow = optical_flow(before[: len(after)], after)[:, 0].numpy()
    slopes = np.abs(np.gradient(luma(before[: len(after)]), axis=2))
    rows, columns = (
        np.linspace(0, side, n + 1).astype(int) for side, n in zip(slopes.shape[1:], flow.shape[1:], strict=True)
    )
    texture = np.add.reduceat(np.add.reduceat(slopes, rows[:-1], axis=1), columns[:-1], axis=2)
    texture /= np.diff(rows)[:, None] * np.diff(columns)
    textured = texture > 2.0
    return float(np.median(flow[textured]) / 2) if textured.any() else 0.0
