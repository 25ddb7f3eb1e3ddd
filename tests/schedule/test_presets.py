from itertools import pairwise

import pytest

from longtake.errors import ScheduleError
from longtake.plan import default_order
from longtake.schedule import PRESETS, find_schedule, parse, rate_of

GRID = 60, 104  # latents of 480 x 832 pixels


def volumes(spans):
    return [span.kernel.t * span.kernel.h * span.kernel.w for span in spans]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_name_for_a_schedule(name):
    schedule = find_schedule(name)
    assert str(schedule) == PRESETS[name].schedule
    assert find_schedule(str(schedule)) == parse(str(schedule)) == schedule
    assert default_order(schedule) == "vanilla"
    with pytest.raises(ScheduleError):
        parse(name)


def test_the_five_structures_of_the_paper_are_there():
    assert list(PRESETS) == ["geometric", "level-duplication", "temporal-kernels", "important-start", "symmetric"]
    assert len({find_schedule(name) for name in PRESETS}) == 5


def test_each_older_frame_of_the_geometric_progression_has_half_the_tokens():
    spans = find_schedule("geometric").left.near
    assert [span.frames for span in spans] == [1] * 5
    assert all(a == 2 * b for a, b in pairwise(volumes(spans)))
    assert {span.kernel.t for span in spans} == {1}


def test_level_duplication_has_more_frames_of_square_kernels_for_the_same_price():
    schedule = find_schedule("level-duplication")
    assert all(kernel.h == kernel.w and kernel.t == 1 for kernel in schedule.kernels)
    assert rate_of(schedule) == rate_of(find_schedule("geometric"))
    assert (schedule.left.near_frames, find_schedule("geometric").left.near_frames) == (7, 5)


def test_temporal_kernels_merge_frames():
    assert [span.kernel.t for span in find_schedule("temporal-kernels").left.near] == [4, 2, 1]
    assert rate_of(find_schedule("temporal-kernels")) == 1.5


def test_an_important_start_is_a_frame_at_full_length_before_the_same_past():
    schedule, plain = find_schedule("important-start"), find_schedule("temporal-kernels")
    assert schedule.left.near == plain.left.near
    assert schedule.context_tokens(*GRID) - plain.context_tokens(*GRID) == 1560


def test_a_symmetric_progression_is_the_same_from_either_end():
    left = find_schedule("symmetric").left
    assert left.far == left.near[::-1]
    assert volumes(left.near) == sorted(volumes(left.near), reverse=True)


@pytest.mark.parametrize("name", ["geometic", "important_start", "Symmetric", "td", "x_g", ""])
def test_a_word_that_names_nothing_is_refused_with_those_that_do(name):
    with pytest.raises(ScheduleError) as caught:
        find_schedule(name)
    said = str(caught.value)
    assert repr(name) in said
    assert all(preset in said for preset in PRESETS)
    parse(said.rpartition("written as ")[2].removesuffix(" is"))


def test_any_other_name_is_read_with_a_caret_where_it_cannot_be():
    with pytest.raises(ScheduleError, match=r"f16k4_q2_g9\n      \^ expected f<n>k<n>"):
        find_schedule("f16k4_q2_g9")
