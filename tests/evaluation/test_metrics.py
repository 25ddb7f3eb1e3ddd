import numpy as np
import pytest

from longtake.evaluation.metrics import background_flow, color_distance, displacement, sharpness


def moving_texture(step, images=8, height=64, width=96):
    """A smooth random texture that moves `step` pixels to the right each image."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 255, (height // 8 + 1, (width + 200) // 8 + 1)).astype(np.float32)
    fine = np.kron(coarse, np.ones((8, 8), np.float32))
    for axis in (0, 1):
        for _ in range(6):
            fine = (fine + np.roll(fine, 1, axis) + np.roll(fine, -1, axis)) / 3
    offsets = [100 - step * t for t in range(images)]
    return np.stack([np.repeat(fine[:height, o : o + width, None], 3, 2) for o in offsets]).astype(np.uint8)


@pytest.mark.parametrize("step", [-3, -1, 1, 3])
def test_flow_finds_a_known_shift(step):
    video = moving_texture(step)
    assert background_flow(video, band=1.0) == pytest.approx(step, abs=0.25)
    assert displacement(video) == pytest.approx(abs(step), rel=0.2)


def test_a_frozen_video_does_not_move():
    assert displacement(moving_texture(0)) < 0.05


def test_blur_lowers_sharpness():
    video = moving_texture(0)
    blurred = ((video.astype(int) + np.roll(video, 3, 1) + np.roll(video, -3, 1)) / 3).astype(np.uint8)
    assert sharpness(blurred) < sharpness(video)


def test_colors_of_a_video_are_at_no_distance_from_themselves():
    video = moving_texture(1)
    assert color_distance(video, video[::-1]) < 1e-9  # float64 sums in another order
    assert color_distance(video, np.clip(video.astype(int) + 20, 0, 255).astype(np.uint8)) > 20
