"""Pictures of a video that is there, or as far as it is: thumbnail, sheet, GIF, every image as PNG."""

from __future__ import annotations

import io
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from PIL import Image

from longtake.errors import InputError
from longtake.media import whole

__all__ = ["KINDS", "Variant", "first_image", "images_of", "last_image", "written"]

THUMBNAIL = 480  # pixels of the longer side
SHEET_TILES, SHEET_COLUMNS, TILE = 40, 8, 240
GIF_SIDE, GIF_RATE, GIF_IMAGES, GIF_COLORS = 320, 8.0, 120, 96


def images_of(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """The images of some files in a row, as uint8 "H W 3"."""
    for path in paths:
        with av.open(str(path)) as container:
            for picture in container.decode(video=0):
                yield picture.to_ndarray(format="rgb24", threads=1)


def first_image(path: Path) -> np.ndarray:
    """The first image of a video.

    Raises:
        InputError: there is none that can be read.
    """
    try:
        return next(images_of([path]))
    except (OSError, StopIteration, av.error.FFmpegError) as error:
        raise InputError(f"{path}: no image of it can be read") from error


def last_image(path: Path) -> np.ndarray:
    """The last image of a video, all of which is read: segments are short."""
    last = deque(images_of([path]), maxlen=1)
    if not last:
        raise InputError(f"{path}: there is no image in it")
    return last[0]


def _shrunk(image: np.ndarray, side: int) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _picks(count: int, most: int) -> list[int]:
    """So many numbers below a count, evenly spaced.

    >>> _picks(10, 3), _picks(2, 3)
    ([0, 4, 9], [0, 1])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _picked(paths: Sequence[Path], count: int, most: int) -> Iterator[np.ndarray]:
    chosen = set(_picks(count, most))
    return (image for number, image in enumerate(images_of(paths)) if number in chosen)


def thumbnail(paths: Sequence[Path], count: int, fps: float, out: Path) -> None:
    """One picture as WebP, from a third of the way."""
    image = next(image for number, image in enumerate(images_of(paths)) if number >= min(count // 3, 36))
    _shrunk(image, THUMBNAIL).save(out, "WEBP", quality=82)


def spritesheet(paths: Sequence[Path], count: int, fps: float, out: Path) -> None:
    """Small pictures in rows, evenly spaced in time, as WebP."""
    tiles = [_shrunk(image, TILE) for image in _picked(paths, count, SHEET_TILES)]
    width, height = tiles[0].size
    columns = min(SHEET_COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    sheet.save(out, "WEBP", quality=80)


def gif(paths: Sequence[Path], count: int, fps: float, out: Path) -> None:
    """A small moving picture, at the video's own pace."""
    most = min(GIF_IMAGES, max(1, round(count / fps * GIF_RATE)))
    frames = [
        _shrunk(image, GIF_SIDE).quantize(GIF_COLORS, dither=Image.Dither.NONE) for image in _picked(paths, count, most)
    ]
    lasts = max(20, round(1000 * count / fps / len(frames)))
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=lasts, loop=0, optimize=True)


def frames(paths: Sequence[Path], count: int, fps: float, out: Path) -> None:
    """Every image as PNG in a ZIP."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images_of(paths)):
            packed = io.BytesIO()
            Image.fromarray(image).save(packed, "PNG", compress_level=1)
            archive.writestr(f"{number:06d}.png", packed.getvalue())


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to show a video."""

    write: Callable[[Sequence[Path], int, float, Path], None]  # from files with so many images at fps
    ending: str
    media_type: str


KINDS: Mapping[str, Variant] = {
    "thumbnail": Variant(thumbnail, "webp", "image/webp"),
    "spritesheet": Variant(spritesheet, "webp", "image/webp"),
    "gif": Variant(gif, "gif", "image/gif"),
    "frames": Variant(frames, "zip", "application/zip"),
}


def written(variant: Variant, paths: Sequence[Path], count: int, fps: float, path: Path) -> None:
    """Writes a variant, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with whole(path) as unfinished:
        variant.write(paths, count, fps, unfinished)
