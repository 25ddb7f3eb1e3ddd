"""Where images that are made meet those of the video that is made longer."""

from __future__ import annotations

import numpy as np

from longtake.media import load_image
from longtake.pipeline.run import Run

__all__ = ["close_seam"]

SECONDS = 0.5  # in which the made images take over


def close_seam(run: Run, place: int, before: np.ndarray | None, images: np.ndarray) -> np.ndarray:
    """The images "T H W 3" of a section as they are shown: next to the source they begin or end as it does."""
    config, source = run.config, run.config.source
    if source is None:
        return images
    if source.side == "before" and place == run.sections - 1:
        missing = load_image(run.folder / "start.png").astype(np.float32) - images[-1]
        return _led(images[:-1][::-1], missing, config.fps)[::-1]
    if source.side == "after" and place == 0 and before is not None:
        missing = load_image(run.folder / "last.png").astype(np.float32) - before
        return _led(images, missing, config.fps)
    return images


def _led(images: np.ndarray, missing: np.ndarray, fps: float) -> np.ndarray:
    """The images with what the codec misses added, less and less."""
    count = min(len(images), round(SECONDS * fps))
    weights = 1 - np.arange(1, count + 1, dtype=np.float32) / (count + 1)
    led = images[:count] + weights[:, None, None, None] * missing
    return np.concatenate([led.round().clip(0, 255).astype(np.uint8), images[count:]])
