"""Sizes that FramePack was trained at, and pictures brought to them as the official program does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from longtake.errors import InputError

__all__ = ["BUCKETS", "RESOLUTION", "Bucket", "buckets_at", "find_bucket", "fit_bucket"]

GRID = 16  # pixels of one token: a codec of 8 pixels a latent, two latents a token
KEPT = 1 / 16  # of a picture, at least: the rest is cropped


@dataclass(frozen=True, slots=True)
class Bucket:
    """A size of picture, in pixels."""

    height: int
    width: int


RESOLUTION = 640  # what the official program calls these; each has about 640 x 608 pixels
BUCKETS = (  # the official order, which decides between two that fit as well
    Bucket(416, 960),
    Bucket(448, 864),
    Bucket(480, 832),
    Bucket(512, 768),
    Bucket(544, 704),
    Bucket(576, 672),
    Bucket(608, 640),
    Bucket(640, 608),
    Bucket(672, 576),
    Bucket(704, 544),
    Bucket(768, 512),
    Bucket(832, 480),
    Bucket(864, 448),
    Bucket(960, 416),
)


def buckets_at(resolution: int) -> tuple[Bucket, ...]:
    """The buckets of another resolution: those of 640, scaled, to the nearest multiples of 16 pixels.

    >>> buckets_at(320)[0]
    Bucket(height=208, width=480)

    Raises:
        InputError: the resolution is too small for the longest bucket to keep its shape.
    """
    if resolution < 10 * GRID:
        raise InputError(f"a resolution of {resolution}: expected {10 * GRID} or more, officially {RESOLUTION}")

    def scaled(side: int) -> int:
        return (side * resolution + RESOLUTION * GRID // 2) // (RESOLUTION * GRID) * GRID

    return tuple(Bucket(scaled(bucket.height), scaled(bucket.width)) for bucket in BUCKETS)


def find_bucket(height: int, width: int, buckets: tuple[Bucket, ...] = BUCKETS) -> Bucket:
    """The bucket whose shape is nearest to a picture's: the least |H w - W h|, of equals the last.

    >>> find_bucket(1080, 1920), find_bucket(1000, 1000)
    (Bucket(height=480, width=832), Bucket(height=640, width=608))
    """

    def distance(bucket: Bucket) -> int:
        return abs(height * bucket.width - width * bucket.height)

    return min(reversed(buckets), key=distance)


def fit_bucket(image: np.ndarray, bucket: Bucket) -> np.ndarray:
    """The picture, uint8 "H W 3", at a bucket's size: scaled (Lanczos) until it covers it, then cropped at its center.

    Whole pixels at each step, as in the official program; `longtake.media.fit` places the crop between pixels.

    >>> fit_bucket(np.zeros((300, 100, 3), np.uint8), Bucket(96, 160)).shape
    (96, 160, 3)

    Raises:
        InputError: the picture is so long that next to nothing of it would be left.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (bucket.height, bucket.width):
        return image
    scale = max(bucket.width / columns, bucket.height / rows)
    height, width = round(rows * scale), round(columns * scale)
    if height * width * KEPT > bucket.height * bucket.width:
        raise InputError(
            f"a picture of {columns} x {rows} pixels: hardly anything of it would be left at "
            f"{bucket.width} x {bucket.height}; crop it to about that shape"
        )
    scaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    top, left = round((height - bucket.height) / 2), round((width - bucket.width) / 2)
    return scaled[top : top + bucket.height, left : left + bucket.width].copy()
