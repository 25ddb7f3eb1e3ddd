from functools import cache

import numpy as np
import pytest

from longtake.training.config import SectionConfig
from longtake.training.windows import draw_window, every_window

CONFIG = SectionConfig()
LONGEST = 55  # six sections of nine frames and the start


@cache
def drawn(count=400):
    return [draw_window(CONFIG, LONGEST, np.random.default_rng((0, n))) for n in range(count)]


def test_windows_are_sections_of_plans_and_fit_into_the_track():
    for window in drawn():
        assert window.frames <= LONGEST
        assert window.section.frames[0] == 1 + 9 * window.place
        key = 1 + 9 * window.given if window.given else None
        assert all(0 <= f < window.frames or f == key for look in window.section.sees for f in look.frames)


def sights(windows):
    return {(w.order, tuple((len(look.frames), look.kernel) for look in w.section.sees)) for w in windows}


def test_every_length_of_history_of_every_order_is_drawn():
    assert sights(drawn(4000)) >= sights(every_window(CONFIG, LONGEST))


def test_a_given_image_is_seen_until_its_section_is_made():
    windows = [window for window in drawn(4000) if window.given]
    assert {window.order for window in windows} == {share for share in CONFIG.shares if " " not in share}
    for window in windows:
        key = 1 + 9 * window.given
        assert key not in window.section.frames
        assert key in {f for look in window.section.sees for f in look.frames}


def test_a_share_may_have_a_schedule_of_its_own():
    config = CONFIG.model_copy(update={"shares": {"vanilla f1k1_g9": 1.0}, "startless_share": 0.0})
    windows = [draw_window(config, LONGEST, np.random.default_rng(n)) for n in range(50)]
    assert {window.order for window in windows} == {"vanilla"}
    assert {window.section.seen for window in windows} == {frozenset({9 * place}) for place in range(6)}


def test_some_sections_know_no_start_image():
    windows = [window for window in drawn(4000) if window.order == "inverted"]
    startless = np.mean([not any(look.frames == (0,) for look in window.section.sees) for window in windows])
    assert startless == pytest.approx(CONFIG.startless_share, abs=0.03)  # more than three standard errors


def test_there_are_few_kinds_of_sections_to_compile():
    assert len({tuple((len(x.frames), x.kernel) for x in w.section.sees) for w in drawn(4000)}) < 60


def test_a_step_draws_the_same_window_again():
    assert drawn.__wrapped__(20) == drawn(20)


def test_the_first_section_has_its_share():
    first = np.mean([window.section.index == 0 for window in drawn()])
    assert first == pytest.approx(CONFIG.first_share, abs=0.06)  # three standard errors of 400 draws


def test_a_plain_video_model_sees_nothing():
    window = draw_window(CONFIG.model_copy(update={"stage": "base"}), LONGEST, np.random.default_rng(0))
    assert window.section.sees == ()
    assert window.section.frames == tuple(range(10))


def test_sections_made_before_are_those_that_are_seen_and_they_see_what_the_window_has():
    for window in drawn():
        known = {*range(window.frames), window.key}
        for section in window.made_before(3):
            assert section.frames[-1] < window.frames
            assert not {*section.frames}.isdisjoint(window.seen)
            assert section.index < window.section.index
            assert all({*look.frames} <= known for look in section.sees)
            assert all(len(look.frames) == len(look.positions) for look in section.sees)


def test_the_near_frames_are_the_nearest_of_those_that_are_seen():
    config = CONFIG.model_copy(update={"shares": {"vanilla": 1.0}})
    window = every_window(config, LONGEST)[4]
    assert window.near(3) == (36, 35, 34)
    assert window.near(18) == tuple(range(36, 18, -1))
    assert window.near(19) == ()  # nothing would be left but the start image
