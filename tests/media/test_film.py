"""Videos with any number of images a second, read as evenly spaced ones."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from longtake.errors import InputError
from longtake.media import Film, open_film, read_video, write_segment


def numbered(images: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Gray images, the brighter the later."""
    return np.stack([np.full((height, width, 3), 4 * number, np.uint8) for number in range(images)])


def at_times(path: Path, ticks: list[int], base: Fraction) -> Path:
    """A video whose images are shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        stream.options = {"crf": "0", "bf": "0"}
        for image, tick in zip(numbered(len(ticks)), ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(film: Film, fps: float) -> list[int]:
    """The numbers of the images that are shown."""
    return [round(float(image.mean()) / 4) for image in film.images(fps, 32, 48)]


def test_images_at_their_own_rate_are_those_of_the_file(tmp_path):
    path = write_segment(numbered(20), tmp_path / "a.mp4", 0, 12).path
    film = open_film(path)
    assert (film.height, film.width, film.seconds, film.sound) == (32, 48, Fraction(20, 12), False)
    assert np.array_equal(np.stack(list(film.images(12, 32, 48))), read_video(path))


@pytest.mark.parametrize(("fps", "wanted"), [(24, 40), (30, 50), (6, 10), (12.5, 21), (23.976, 40)])
def test_another_rate_keeps_the_length(tmp_path, fps, wanted):
    film = open_film(write_segment(numbered(20), tmp_path / "a.mp4", 0, 12).path)
    found = shown(film, fps)
    assert len(found) == len(film.picks(fps)) == wanted
    assert found == sorted(found)
    assert abs(len(found) / fps - film.seconds) <= 0.5 / fps
    assert all(abs(n / fps - number / 12) <= 0.5 / 12 + 1e-9 for n, number in enumerate(found) if number < 19)


def test_the_nearest_picture_is_shown_where_times_are_uneven(tmp_path):
    film = open_film(at_times(tmp_path / "a.mp4", [0, 10, 100, 220, 250], Fraction(1, 1000)))
    assert film.seconds == Fraction(280, 1000)  # the last one is shown as long as the one before it
    assert shown(film, fps=50) == [0, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4]


def test_images_are_fitted(tmp_path):
    film = open_film(write_segment(numbered(5, 64, 64), tmp_path / "a.mp4", 0, 12).path)
    assert np.stack(list(film.images(12, 32, 48))).shape == (5, 32, 48, 3)


def test_a_video_that_became_shorter_is_refused(tmp_path):
    path = write_segment(numbered(20), tmp_path / "a.mp4", 0, 12).path
    film = open_film(path)
    write_segment(numbered(10), path, 0, 12)
    with pytest.raises(InputError, match="has become shorter since it was looked at"):
        list(film.images(12, 32, 48))


@pytest.mark.parametrize(("content", "said"), [(None, "no such video"), (b"text", "not a video that can be read")])
def test_what_is_no_video_is_refused(tmp_path, content, said):
    path = tmp_path / "a.mp4"
    if content:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_film(path)
