import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from longtake.media.statistics import color_statistics, luma, sharpness

VIDEOS = arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3, st.just(3)))


@given(VIDEOS)
def test_color_statistics_are_means_and_deviations(video):
    pixels = video.reshape(-1, 3).astype(float)
    assert np.allclose(color_statistics(video), [*pixels.mean(0), *pixels.std(0)])


def test_gray_has_its_own_luma():
    gray = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.abs(luma(gray) - gray[..., 0]).max() < 1e-4  # float32


def test_sharpness_is_the_square_of_contrast():
    """Of a checkerboard, where each pixel differs from all its neighbors by the contrast."""
    board = np.indices((8, 8)).sum(0) % 2
    for contrast in (1, 10, 255):
        video = (contrast * board).astype(np.uint8)[None, :, :, None].repeat(3, axis=3)
        assert np.isclose(sharpness(video), 2 * contrast**2, rtol=1e-5)  # float32
