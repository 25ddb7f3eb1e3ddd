"""Plans around a video that is there: after it (`first`), and before it (`first=0`, `beyond`)."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import PlanError
from longtake.plan import BOTH_SIDES, INVERTED, ORDERS, VANILLA, make_plan
from longtake.schedule import parse

untimed = settings(deadline=None)  # a test asserts no wall-clock time

kernels = st.sampled_from(["k1", "k2", "k4"])
packings = st.lists(st.tuples(st.integers(1, 7), kernels), min_size=1, max_size=3).map(
    lambda spans: "".join(f"f{frames}{kernel}" for frames, kernel in spans)
)
tails = st.sampled_from(["", "td_", "ta_", "tc_"])
anchors = st.sampled_from(["", "f1k1_x_"])
makes = st.integers(1, 10).map(lambda n: f"_g{n}")


def joined(*parts):
    return "".join(parts)


past = st.builds(joined, tails, st.sampled_from(["", "f1k1_x_", "f3k2_x_"]), packings, makes)
both = st.builds(joined, tails, anchors, packings, makes, packings.map(lambda spans: f"_x_{spans}"))
future = st.builds(joined, anchors, st.integers(1, 10).map(lambda n: f"g{n}_"), packings)
NAMES = {"vanilla": past | both, "inverted": future | both, "planned": both, "anti_drifting": both}


@st.composite
def plans(draw, orders=tuple(NAMES), gaps=("true", "clamped", "near")):
    """What plans after, before or between frames that are known are made from."""
    order = draw(st.sampled_from(orders))
    name = draw(NAMES[order])
    first, n = draw(st.integers(0, 60)), draw(st.integers(1, 8))
    return name, order, draw(st.sampled_from(gaps)), first, n, draw(st.integers(0, 9)), draw(st.integers(0, 40))


def planned(name, order, gaps, first, n, less, beyond):
    schedule = parse(name)
    frames = first + schedule.generated * n - min(less, schedule.generated - 1)
    return make_plan(schedule, frames, order, gaps, first=first, beyond=beyond if schedule.ahead else 0)


def known_to(plan):
    return {frame for run in plan.known for frame in run}


@untimed
@given(plans())
def test_what_is_not_known_is_made_once(drawn):
    plan = planned(*drawn)
    made = [f for section in plan.sections for f in section.frames]
    assert sorted(made) == list(range(plan.first, plan.frames))
    assert known_to(plan) == {*range(plan.first), *range(plan.frames, plan.frames + plan.beyond)}
    assert all(b == a + 1 for section in plan.sections for a, b in pairwise(section.frames))
    assert sorted(plan.by_place()) == list(range(len(plan.sections)))
    assert [plan.by_place()[p].frames for p in sorted(plan.by_place())] == sorted(s.frames for s in plan.sections)


@untimed
@given(plans())
def test_a_section_looks_only_at_frames_that_are_known_and_in_time_order(drawn):
    plan = planned(*drawn)
    known = known_to(plan)
    for section in plan.sections:
        for look in section.sees:
            assert look.frames
            assert known.issuperset(look.frames)
            assert list(look.frames) == sorted(set(look.frames))
            assert list(look.positions) == sorted(look.positions)
        known.update(section.frames)


@untimed
@given(plans())
def test_a_section_sees_what_is_nearest_on_each_side(drawn):
    plan = planned(*drawn)
    known, schedule = known_to(plan), plan.schedule
    for section in plan.sections:
        past = [f for f in known if f < section.frames[0]]
        future = [f for f in known if f > section.frames[-1]]
        assert not (past and schedule.left.near) or max(past) in section.seen
        assert not (future and schedule.ahead) or min(future) in section.seen
        known.update(section.frames)


@untimed
@given(plans(gaps=["clamped", "near"]))
def test_frames_that_touch_a_section_keep_their_distance(drawn):
    """Whatever is known from the beginning: positions are trained for neighbors, and the joint is one."""
    plan = planned(*drawn)
    for section in plan.sections:
        shift = section.positions[0] - section.frames[0]
        for look in section.sees:
            if look.tail:
                continue
            positions = dict(zip(look.frames, look.positions, strict=True))
            before, after = section.frames[0] - 1, section.frames[-1] + 1
            if plan.schedule.left.near and before in positions and look not in section.sees[:1]:
                assert positions[before] == before + shift
            if after in positions:
                assert positions[after] == after + shift


@untimed
@given(past | both, st.integers(0, 6), st.integers(1, 6), st.sampled_from(["true", "clamped"]))
def test_going_on_with_made_sections_is_making_them_in_one_go(name, known, more, gaps):
    schedule = parse(name)
    first, frames = 1 + schedule.generated * known, 1 + schedule.generated * (known + more)
    whole = make_plan(schedule, frames, "vanilla", gaps)
    rest = make_plan(schedule, frames, "vanilla", gaps, first=first)
    assert [replace(section, index=section.index + known) for section in rest.sections] == [*whole.sections[known:]]


@untimed
@given(future, st.integers(1, 6), st.integers(1, 6))
def test_what_is_made_before_a_video_sees_what_an_inverted_plan_sees_without_its_start(name, known, more):
    """Frame numbers are one lower, as there is no start image; distances are those of the plan of the whole."""
    schedule = parse(name)
    g = schedule.generated
    whole = make_plan(schedule, 1 + g * (known + more), "inverted")
    rest = make_plan(schedule, g * more, "inverted", first=0, beyond=g * known)

    def seen(section, moved):
        ahead = [look for look in section.sees if look.frames != (0,)]
        distances = [tuple(p - section.positions[0] for p in look.positions) for look in ahead]
        frames = [tuple(f + moved for f in look.frames) for look in ahead]
        return tuple(f + moved for f in section.frames), frames, distances, [look.kernel for look in ahead]

    assert [seen(section, 1) for section in rest.sections] == [seen(section, 0) for section in whole.sections[known:]]
    assert all(look.frames[0] for section in rest.sections for look in section.sees)


def test_the_first_frames_of_a_video_stay_in_sight():
    section = make_plan(parse(VANILLA), 120, first=102).sections[1]
    assert section.sees[0].frames == section.sees[0].positions == (0,)
    assert section.positions == tuple(range(20, 29))


def test_a_frame_that_is_known_cannot_be_given():
    with pytest.raises(PlanError, match="frame 20 cannot be given: expected 30 to 48"):
        make_plan(parse(BOTH_SIDES), 48, first=30, given=[20])


def test_there_is_a_frame_to_make():
    with pytest.raises(PlanError, match="30 latent frames cannot be made: a video has at least one behind the 30"):
        make_plan(parse(VANILLA), 30, first=30)


def test_what_is_made_before_a_video_needs_a_schedule_that_sees_ahead():
    with pytest.raises(PlanError, match="sees nothing that lies ahead"):
        make_plan(parse(VANILLA), 18, first=0, beyond=10)
    assert make_plan(parse(INVERTED), 18, "inverted", first=0, beyond=10).sections[0].seen == frozenset(range(18, 28))


def test_every_order_is_drawn_of_it():
    assert set(NAMES) == set(ORDERS)
