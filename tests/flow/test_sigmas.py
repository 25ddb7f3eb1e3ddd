import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtake.flow import FRAMEPACK_SHIFT, HELIOS_DISTILLED_SHIFT, HELIOS_SHIFT, WAN_SHIFT, shift_for, sigmas

# FramePack at 25 steps and shift 7, to four digits.
FRAMEPACK_25 = [
    1, .9941, .9877, .9809, .9735, .9655, .9568, .9474, .9370, .9256, .9130, .8991, .8835, .8660, .8462, .8235, .7975,
    .7671, .7313, .6885, .6364, .5714, .4884, .3784, .2258, 0,
]  # fmt: skip


def test_sigmas_are_those_of_framepack():
    torch.testing.assert_close(sigmas(25, shift=7.0), torch.tensor(FRAMEPACK_25), atol=6e-5, rtol=0)


@given(st.integers(1, 200), st.floats(0.1, 20))
def test_sigmas_fall_from_one_to_zero(steps, shift):
    levels = sigmas(steps, shift)
    assert levels.shape == (steps + 1,)
    assert levels.dtype == torch.float32
    assert levels[0] == 1
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()


@pytest.mark.parametrize(
    ("frames", "shift"), [(1, 2.04), (2, 2.64), (3, 3.42), (4, 4.42), (5, 5.72), (6, 7.0), (9, 7.0)]
)
def test_the_shift_grows_with_the_noisy_tokens(frames, shift):
    assert shift_for(1520 * frames, FRAMEPACK_SHIFT) == pytest.approx(shift, abs=0.005)


def test_the_shift_goes_through_its_two_points():
    assert math.log(shift_for(256, FRAMEPACK_SHIFT)) == pytest.approx(0.5)
    assert math.log(shift_for(4096, FRAMEPACK_SHIFT)) == pytest.approx(1.15)
    assert shift_for(8797, FRAMEPACK_SHIFT) < 7.0 == shift_for(8799, FRAMEPACK_SHIFT)


def test_helios_shifts_by_the_same_line_and_its_distilled_model_by_the_line_itself():
    for tokens in (540, 2160, 8640):
        assert math.log(shift_for(tokens, HELIOS_SHIFT)) == pytest.approx(shift_for(tokens, HELIOS_DISTILLED_SHIFT))
    assert shift_for(8640, HELIOS_SHIFT) == pytest.approx(shift_for(8640, FRAMEPACK_SHIFT))
    assert shift_for(20_000, HELIOS_SHIFT) > 7.0


def test_wans_shift_grows_with_the_image_between_two_published_sizes_and_nowhere_else():
    sides = [(96, 160), (480, 832), (544, 960), (640, 1136), (720, 1280), (1080, 1920)]
    shifts = [WAN_SHIFT.at(height * width) for height, width in sides]
    assert shifts[:2] == [3.0, 3.0]
    assert 3.0 < shifts[2] < shifts[3] < 5.0
    assert shifts[4:] == [5.0, 5.0]
