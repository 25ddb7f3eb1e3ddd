import numpy as np
import pytest

from longtake.evaluation.drift import Drift, bootstrap, drift_of, paired_at_equal_motion
from longtake.evaluation.metrics import background_flow, camera_flow


def texture(height=96, width=160, seed=0):
    """A smooth pattern without repeats, as large as the embedded model's pictures."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.cos(2 * np.pi * (x * u + y * v) + p) for u, v, p in draw.uniform(-0.08, 0.08, (40, 3)) * (1, 1, 80)]
    return np.stack([120 + 9 * np.sum(waves[c::3], axis=0) for c in range(3)], -1).clip(30, 210).astype(np.uint8)


def moving(images=73, speed=1):
    """A texture that moves to the left by `speed` pixels an image."""
    wide = texture(width=160 + images * speed)
    return np.stack([wide[:, speed * i : speed * i + 160] for i in range(images)])


def test_a_still_picture_does_not_drift_and_does_not_move():
    video = np.repeat(texture()[None], 73, axis=0)
    drift = drift_of(video)
    assert (drift.sharpness, drift.color) == (0.0, 0.0)
    assert drift.motion == pytest.approx(0.0, abs=1e-3)
    assert drift.background == pytest.approx((0.0, 0.0), abs=1e-3)


def test_a_picture_that_brightens_drifts_in_color_by_as_much():
    video = np.repeat(texture()[None], 100, axis=0)
    brighter = video + np.linspace(0, 40, 100).round().astype(np.uint8)[:, None, None, None]
    # The means of the first and the last 15% of a ramp to 40 are 34 apart, in each of three colors.
    assert drift_of(brighter).color == pytest.approx(34 * 3**0.5, rel=0.03)


def test_a_picture_that_is_smoothed_drifts_in_sharpness():
    video = np.repeat(texture()[None], 80, axis=0).astype(float)
    video[40:] = (video[40:] + np.roll(video[40:], 5, axis=2) + np.roll(video[40:], 5, axis=1)) / 3
    assert 0.3 < drift_of(video.astype(np.uint8)).sharpness < 1


def test_the_camera_is_read_as_opencv_reads_it():
    pytest.importorskip("cv2")
    for speed in (1, 2):
        video = moving(speed=speed)
        assert camera_flow(video) == pytest.approx(-speed, rel=0.2)
        assert camera_flow(video) == pytest.approx(background_flow(video), rel=0.25)


def test_an_interval_holds_its_mean_and_narrows_with_more_groups():
    draw = np.random.default_rng(0)
    few, many = ([[x] for x in draw.normal(3, 1, count)] for count in (10, 1000))
    for groups in (few, many):
        interval = bootstrap(groups)
        assert interval.low < interval.mean < interval.high
    assert bootstrap(many).high - bootstrap(many).low < 0.2 * (bootstrap(few).high - bootstrap(few).low) + 0.1
    # The standard error of a thousand draws is 0.032: 95% lie within 1.96 of it.
    assert bootstrap(many).high - bootstrap(many).low == pytest.approx(2 * 1.96 * 0.032, rel=0.15)


def test_what_is_in_a_group_stays_together():
    assert bootstrap([[1.0] * 50, [3.0] * 50]).low == 1.0


def drift(color, motion):
    return Drift(sharpness=0.0, color=color, motion=motion, background=())


def test_only_pairs_of_like_motion_are_compared():
    ours = [[drift(5.0, 1.0), drift(1.0, 0.1)], [drift(7.0, 1.1)]]
    theirs = [[drift(6.0, 1.2), drift(9.0, 1.0)], [drift(9.0, 1.0)]]
    interval, pairs = paired_at_equal_motion(ours, theirs, "color")
    assert pairs == 2
    assert interval.mean == pytest.approx(-1.5)
    assert paired_at_equal_motion(ours[:1], theirs[:1], "color", within=1.01) is None
