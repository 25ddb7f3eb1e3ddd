"""Videos of any kind as evenly spaced images: when each picture is shown, and the nearest one for any moment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import av.error
import numpy as np

from longtake.errors import InputError
from longtake.media.images import fit

__all__ = ["Film", "open_film"]


@dataclass(frozen=True, slots=True)
class Film:
    """A video file of which every picture can be read."""

    path: Path
    times: tuple[Fraction, ...]  # seconds from the first picture to each
    seconds: Fraction  # that it lasts
    height: int  # pixels of what is seen, turned as the file says
    width: int
    sound: bool

    def picks(self, fps: float) -> tuple[int, ...]:
        """For each image at `fps`, the picture that is nearest in time, the earlier of two.

        >>> times = tuple(Fraction(n, 24) for n in range(6))
        >>> Film(Path("a.mp4"), times, Fraction(6, 24), 96, 160, sound=False).picks(fps=12)
        (0, 2, 4)
        """
        rate = Fraction(fps).limit_denominator(1001)
        images = max(1, round(self.seconds * rate))
        return tuple(_nearest(self.times, n / rate) for n in range(images))

    def images(self, fps: float, height: int, width: int) -> Iterator[np.ndarray]:
        """The images at `fps`, one by one, each scaled to cover the size and cropped around its center: uint8 "H W 3".

        Raises:
            InputError: the file has changed since it was opened.
        """
        picks, at = self.picks(fps), 0
        for number, picture in enumerate(_pictures(self.path)):
            if at == len(picks):
                return
            if number == picks[at]:
                image = fit(_upright(picture), height, width)
                while at < len(picks) and picks[at] == number:
                    yield image
                    at += 1
        if at < len(picks):
            raise InputError(f"{self.path}: the video has become shorter since it was looked at")


def open_film(path: Path) -> Film:
    """Reads a video to its end, and keeps when its pictures are shown.

    Raises:
        InputError: the file is missing, has no pictures, or one of them cannot be read.
    """
    times, shapes = list[Fraction](), list[tuple[int, int]]()
    for picture in _pictures(path):
        if picture.pts is None or picture.time_base is None:
            raise InputError(f"{path}: it does not say when its pictures are shown; a copy as MP4 would do")
        times.append(picture.pts * picture.time_base)
        if not shapes:
            turned = picture.rotation % 180 != 0
            shapes.append((picture.width, picture.height) if turned else (picture.height, picture.width))
    if not times:
        raise InputError(f"{path}: there are no pictures in this video")
    times = [time - times[0] for time in times]
    if any(b <= a for a, b in pairwise(times)):
        raise InputError(f"{path}: the times of its pictures do not rise; a copy that is encoded anew would do")
    last = (times[-1] - times[-2]) if len(times) > 1 else Fraction(0)
    with av.open(str(path)) as container:
        sound = bool(container.streams.audio)
    return Film(path, tuple(times), times[-1] + last, *shapes[0], sound)


def _pictures(path: Path) -> Iterator[av.VideoFrame]:
    """The pictures of a file in the order of time."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: there is no video in this file; one with pictures would do")
            container.streams.video[0].thread_type = "AUTO"
            yield from container.decode(video=0)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such video") from None
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"{path}: not a video that can be read ({error})") from error


def _upright(picture: av.VideoFrame) -> np.ndarray:
    """A picture as uint8 "H W 3", turned as its display matrix says (counterclockwise, in degrees)."""
    return np.rot90(picture.to_ndarray(format="rgb24", threads=1), round(picture.rotation / 90))


def _nearest(times: tuple[Fraction, ...], moment: Fraction) -> int:
    """The number of the picture nearest to a moment, the earlier of two."""
    after = bisect_left(times, moment)
    if after == 0 or (after < len(times) and times[after] - moment < moment - times[after - 1]):
        return after
    return after - 1
