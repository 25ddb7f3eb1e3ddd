from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import PlanError
from longtake.plan import BOTH_SIDES, INVERTED, ORDERS, VANILLA, Look, default_order, make_plan, sections_for
from longtake.plan.sight import Known
from longtake.schedule import Kernel, parse

untimed = settings(deadline=None)  # a test asserts no wall-clock time

K1, K2, K4 = Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8)

# Properties that hold for every order

kernels = st.sampled_from(["k1", "k2", "k4", "k1h8w8"])
packings = st.lists(st.tuples(st.integers(1, 7), kernels), min_size=1, max_size=4).map(
    lambda spans: "".join(f"f{frames}{kernel}" for frames, kernel in spans)
)
tails = st.sampled_from(["", "td", "ta", "tc"])
made = st.integers(1, 10).map(lambda n: f"g{n}")


def name(*parts):
    return "_".join(part for part in parts if part)


past = st.builds(name, tails, st.sampled_from(["", "f1k1_x", "f3k2_x", "f1k1f4k4_x"]), packings, made)
future = st.builds(name, st.sampled_from(["", "f1k1_x", "f1k2_x"]), made, packings, tails)
memoryless = st.builds(name, st.sampled_from(["", "f1k1_x", "f2k1_x"]), made)
beyond = packings.map(lambda spans: f"x_{spans}")
both = st.builds(name, tails, st.sampled_from(["", "f1k1_x"]), packings, made, beyond)
beside = st.builds(name, tails, st.sampled_from(["", "f1k1_x"]), packings, made, packings, tails)
NAMES = {
    "vanilla": past | memoryless | both,
    "inverted": future | both,
    "planned": both | beside,
    "planned:2": both | beside,
    "planned:7,4,2": both | beside,
    "anti_drifting": both | beside,
}
CONTIGUOUS = ["vanilla", "inverted"]  # orders in which every section has a known neighbor, once one is made


@st.composite
def plans(draw, gaps=("true", "clamped", "near"), missing=("absent", "zeros"), orders=tuple(NAMES)):
    order = draw(st.sampled_from(orders))
    schedule, n = draw(NAMES[order]), draw(st.integers(1, 12))
    return (schedule, n, order, draw(st.sampled_from(gaps)), draw(st.sampled_from(missing)))


def planned(schedule, n, order, gaps="clamped", missing="absent"):
    schedule = parse(schedule)
    return make_plan(schedule, 1 + schedule.generated * n, order, gaps, missing)


@untimed
@given(plans(), st.integers(0, 9))
def test_every_frame_is_made_once_whatever_the_length(drawn, less):
    schedule, n, order, *rest = drawn
    g = parse(schedule).generated
    frames = max(2, 1 + g * n - min(less, g - 1))
    plan = make_plan(parse(schedule), frames, order, *rest)
    made = [f for section in plan.sections for f in section.frames]
    assert sorted(made) == list(range(1, frames))
    assert [section.index for section in plan.sections] == list(range(len(plan.sections)))
    assert all(b == a + 1 for section in plan.sections for a, b in pairwise(section.frames))
    shorter = [section for section in plan.sections if len(section.frames) != g]
    assert all(section.frames[-1] == frames - 1 for section in shorter)


@untimed
@given(plans(missing=["absent"]))
def test_a_section_looks_only_at_frames_that_are_known(drawn):
    known = {0}
    for section in planned(*drawn).sections:
        for look in section.sees:
            assert look.frames
            assert known.issuperset(look.frames)
        known.update(section.frames)


@untimed
@given(plans(missing=["absent"], orders=["planned", "anti_drifting", "planned:7,4,2"]))
def test_a_section_sees_what_is_nearest_on_each_side(drawn):
    plan, known = planned(*drawn), {0}
    spans = plan.schedule.right.near or plan.schedule.right.far
    for section in plan.sections:
        seen = {f for look in section.sees for f in look.frames}
        assert max(f for f in known if f < section.frames[0]) in seen
        later = [f for f in known if f > section.frames[-1]]
        assert not (later and spans) or min(later) in seen
        known.update(section.frames)


@untimed
@given(plans(missing=["zeros"]))
def test_zeros_stand_only_for_frames_that_are_not_known(drawn):
    plan, known = planned(*drawn), {0}
    one_sided = not plan.schedule.left.near or not (plan.schedule.right.near or plan.schedule.right.far)
    for section in plan.sections:
        for look in section.sees:
            assert not set(look.frames).intersection(section.frames)
            assert not one_sided or all(f in known or not 0 <= f < plan.frames for f in look.frames)
        known.update(section.frames)


@untimed
@given(plans(missing=["zeros"]))
def test_with_zeros_the_spans_are_always_full(drawn):
    plan = planned(*drawn)
    spans = (*plan.schedule.left.near, *(plan.schedule.right.near or plan.schedule.right.far))
    for section in plan.sections:
        near = [look for look in section.sees if not look.tail][-len(spans) :] if spans else []
        assert [(len(look.frames), look.kernel) for look in near] == [(span.frames, span.kernel) for span in spans]


@untimed
@given(plans(orders=CONTIGUOUS))
def test_zeros_add_nothing_but_zeros(drawn):
    schedule, n, order, gaps, _ = drawn
    for full, bare in zip(
        planned(schedule, n, order, gaps, "zeros").sections, planned(schedule, n, order, gaps).sections, strict=True
    ):
        known = {f for look in bare.sees for f in look.frames}
        kept = [
            (pair, look.kernel)
            for look in full.sees
            for pair in zip(look.frames, look.positions, strict=True)
            if pair[0] in known
        ]
        assert kept == [
            (pair, look.kernel) for look in bare.sees for pair in zip(look.frames, look.positions, strict=True)
        ]


@untimed
@given(plans(gaps=["true"]))
def test_true_positions_are_frame_numbers(drawn):
    for section in planned(*drawn).sections:
        assert section.positions == section.frames
        assert all(look.positions == look.frames for look in section.sees)


@untimed
@given(plans(gaps=["clamped"], missing=["absent"]))
def test_clamped_positions_keep_distances_up_to_three_sections(drawn):
    plan = planned(*drawn)
    g, anchors = plan.schedule.generated, plan.schedule.left.far_frames
    anchored = bool(plan.schedule.right.near or plan.schedule.right.far) and not plan.schedule.left.near
    for section in plan.sections:
        shift = section.positions[0] - section.frames[0]
        assert section.positions == tuple(f + shift for f in section.frames)
        for look in section.sees:
            assert len(look.positions) == len(look.frames)
            if look.tail or (look.positions == look.frames and max(look.frames) < max(1, anchors)):
                continue
            assert not anchored or look.frames[0] > section.frames[-1]
            assert {b - a for a, b in pairwise(look.positions)} <= {1}
            past = look.frames[-1] < section.frames[0]
            gap = max(look.frames[0] - section.frames[-1], section.frames[0] - look.frames[-1])
            kept = max(look.positions[0] - section.positions[-1], section.positions[0] - look.positions[-1])
            spans = plan.schedule.left.near if past else plan.schedule.right.near or plan.schedule.right.far
            assert kept == gap or (kept < gap and kept >= 3 * g and kept <= 3 * g + sum(s.frames for s in spans))


@untimed
@given(plans(gaps=["near"], missing=["absent"]))
def test_near_gaps_are_clamped_ones_but_for_endpoints_beyond_all_that_is_known(drawn):
    def gap(section):
        return section.positions[0] - 1 - max((p for x in section.sees if not x.tail for p in x.positions), default=0)

    schedule, n, order, _, missing = drawn
    near, clamped, newest = planned(*drawn), planned(schedule, n, order, "clamped", missing), 0
    for a, b in zip(near.sections, clamped.sections, strict=True):
        if newest >= a.frames[0] - 1:
            assert a == b
        else:
            assert (a.frames, [look.frames for look in a.sees]) == (b.frames, [look.frames for look in b.sees])
            assert gap(a) == min(gap(b), near.schedule.generated)
        newest = max(newest, a.frames[-1])


@pytest.mark.parametrize("order", ["inverted", "anti_drifting", "planned", "planned:3"])
def test_the_first_endpoint_is_near_the_start_image_however_long_the_video(order):
    schedule = INVERTED if order == "inverted" else BOTH_SIDES
    for n in (4, 20, 400):
        endpoint = next(s for s in planned(schedule, n, order, "near").sections if s.frames[0] > 1)
        last = max(p for look in endpoint.sees for p in look.positions)
        assert endpoint.positions[0] == last + 1 + 9


@untimed
@given(plans())
def test_what_is_seen_is_in_time_order(drawn):
    plan = planned(*drawn)
    for section in plan.sections:
        for look in section.sees:
            assert list(look.frames) == sorted(set(look.frames))
            assert list(look.positions) == sorted(look.positions)
        anchors = len(plan.schedule.left.far) if section.index else min(1, len(plan.schedule.left.far))
        for looks in (section.sees[:anchors], section.sees[anchors:]):
            assert [look.positions[0] for look in looks] == sorted(look.positions[0] for look in looks)


@untimed
@given(plans(gaps=["clamped", "near"]))
def test_clamped_positions_do_not_grow_with_the_video(drawn):
    plan = planned(*drawn)
    schedule = plan.schedule
    frames = [schedule.left.near_frames, schedule.right.near_frames, schedule.right.far_frames]
    window = max(1, schedule.left.far_frames) + sum(frames)
    for section in plan.sections:
        positions = [p for look in section.sees for p in look.positions] + list(section.positions)
        assert min(positions) >= -1  # a clamped tail right before a window without anchors
        assert max(positions) <= window + 7 * schedule.generated


@untimed
@given(plans())
def test_context_is_bounded_by_that_of_a_full_history(drawn):
    plan = planned(*drawn)
    grid = 12, 20
    for section in plan.sections:
        spans = sum(look.tokens(*grid) for look in section.sees if not look.tail)
        tail = section.context_tokens(*grid) - spans
        assert spans <= plan.schedule.context_tokens(*grid)
        tails = [plan.schedule.left.tail, plan.schedule.right.tail]
        assert tail <= plan.frames * tails.count("ta") + tails.count("tc")


@untimed
@given(plans(gaps=["true"], orders=CONTIGUOUS), st.integers(1, 5))
def test_sections_of_one_kind_see_the_same_in_a_longer_video(drawn, more):
    schedule, n, order, *rest = drawn
    short, long = planned(schedule, n, order, *rest), planned(schedule, n + more, order, *rest)
    moved = {"vanilla": 0, "inverted": long.frames - short.frames}[order]
    for a, b in zip(short.sections, long.sections, strict=False):
        assert tuple(f + moved for f in a.frames) == b.frames
        assert [(len(look.frames), look.kernel) for look in a.sees] == [(len(x.frames), x.kernel) for x in b.sees]


# Endpoints


def making(order, n):
    return [(section.frames[0] - 1) // 9 for section in planned(BOTH_SIDES, n, order).sections]


def test_the_beginning_and_the_ending_are_made_before_what_lies_between():
    assert making("anti_drifting", 5) == [0, 4, 1, 2, 3]
    assert making("anti_drifting", 1) == [0]


def test_endpoints_are_made_before_what_lies_between_coarse_before_fine():
    assert making("planned", 20) == [9, 19, *range(9), *range(10, 19)]
    assert making("planned:9,3", 12) == [8, 11, 2, 5, 0, 1, 3, 4, 6, 7, 9, 10]
    assert making("planned:3", 8) == [2, 5, 7, 0, 1, 3, 4, 6]
    assert making("planned:4", 8) == [3, 7, 0, 1, 2, 4, 5, 6]
    assert making("planned:6,3", 12) == [5, 11, 2, 8, 0, 1, 3, 4, 6, 7, 9, 10]
    assert making("planned:9", 2) == [1, 0]


def test_an_endpoint_sees_the_one_before_it_across_the_gap():
    section = planned(BOTH_SIDES, 6, "planned:3").sections[1]
    assert section.frames == tuple(range(46, 55))
    assert section.positions == tuple(range(38, 47))  # 18 blank positions after the endpoint's last
    assert section.sees == (
        Look((0,), K1, (0,)),
        Look((19, 20, 21, 22, 23, 24), K4, (11, 12, 13, 14, 15, 16)),
        Look((25, 26), K2, (17, 18)),
        Look((27,), K1, (19,)),
    )


def test_a_section_between_endpoints_sees_the_past_and_the_next_endpoint():
    section = planned(BOTH_SIDES, 6, "planned:3").sections[3]
    assert section.frames == tuple(range(10, 19))
    assert section.sees[-3:] == (
        Look((19,), K1, (29,)),
        Look((20, 21), K2, (30, 31)),
        Look((22, 23, 24, 25), K4, (32, 33, 34, 35)),
    )


@pytest.mark.parametrize("order", ["planned:", "planned:1", "planned:3,3", "planned:3,9", "planned:a", "planned:4,"])
def test_a_spacing_that_does_not_fall_is_refused(order):
    with pytest.raises(PlanError, match="expected sections from endpoint to endpoint, falling, such as planned:20,10"):
        make_plan(parse(BOTH_SIDES), 10, order)


def test_an_order_without_endpoints_takes_no_spacing():
    with pytest.raises(PlanError, match="vanilla has no endpoints to space; those that have: planned"):
        make_plan(parse(BOTH_SIDES), 10, "vanilla:3")


# Given frames


def test_a_given_frame_is_seen_from_afar_until_it_is_made():
    sections = make_plan(parse(BOTH_SIDES), 37, "vanilla", given=[19]).sections
    assert sections[0].sees[-1] == Look((19,), K1, (38,))
    assert sections[1].sees[-1] == Look((19,), K1, (29,))
    assert all(look.frames[-1] < 19 for look in sections[2].sees)
    assert sections[2].sees == make_plan(parse(BOTH_SIDES), 37).sections[2].sees


def test_the_frame_that_follows_the_video_can_be_given():
    for order in ("vanilla", "inverted", "planned", "anti_drifting"):
        plan = make_plan(parse(BOTH_SIDES), 28, order, given=[28])
        last = next(section for section in plan.sections if section.frames[-1] == 27)
        assert (28,) in [look.frames for look in last.sees]


@pytest.mark.parametrize("frame", [0, -1, 29])
def test_a_frame_beside_the_video_cannot_be_given(frame):
    with pytest.raises(PlanError, match=f"frame {frame} cannot be given: expected 1 to 28"):
        make_plan(parse(BOTH_SIDES), 28, given=[frame])


def test_a_schedule_that_sees_nothing_ahead_takes_no_given_frame():
    with pytest.raises(PlanError, match="sees nothing that lies ahead; one that does"):
        make_plan(parse(VANILLA), 28, given=[19])


# What is known


@untimed
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=12), st.integers(0, 50))
def test_known_runs_are_those_of_a_set(added, frame):
    known, true = Known(), set[int]()
    for start, length in added:
        known.add(range(start, start + length))
        true.update(range(start, start + length))
    assert [f for run in known.runs for f in run] == sorted(true)
    assert all(a.stop < b.start for a, b in pairwise(known.runs))
    before, after = known.before(frame), known.after(frame)
    if any(f < frame for f in true):
        assert before[-1] == max(f for f in true if f < frame)
        assert true.issuperset(before)
        assert before.start - 1 not in true
    else:
        assert before == range(frame, frame)
    if any(f >= frame for f in true):
        assert after[0] == min(f for f in true if f >= frame)
        assert true.issuperset(after)
        assert after.stop not in true
    else:
        assert after == range(frame, frame)


# The released models: research tables, written out here from their rule


def paddings(n):
    return list(range(n - 1, -1, -1)) if n <= 4 else [3, *[2] * (n - 3), 1, 0]


def test_the_paddings_are_the_published_ones():
    assert paddings(6) == [3, 2, 2, 2, 1, 0]
    assert paddings(8) == [3, 2, 2, 2, 2, 2, 1, 0]


@pytest.mark.parametrize("n", range(1, 101))
def test_the_inverted_model_sees_its_published_indices(n):
    plan = planned(INVERTED, n, "inverted", "clamped", "zeros")
    assert len(plan.sections) == n
    for section, padding in zip(plan.sections, paddings(n), strict=True):
        line = list(range(1 + 9 * padding + 9 + 1 + 2 + 16))
        start, line = line[:1], line[1 + 9 * padding :]
        new, post, two, four = line[:9], line[9:10], line[10:12], line[12:]
        seen = [(list(look.positions), look.kernel) for look in section.sees]
        assert list(section.positions) == new
        assert seen == [(start, K1), (post, K1), (two, K2), (four, K4)]


@pytest.mark.parametrize("n", range(1, 101))
def test_the_inverted_model_reads_its_published_buffer(n):
    # New latents are put in front of a buffer of zeros; a call reads its first 1, 2 and 16.
    plan = planned(INVERTED, n, "inverted", "clamped", "zeros")
    buffer = [None] * 19
    for section in plan.sections:
        seen = [[f if 0 <= f < plan.frames else None for f in look.frames] for look in section.sees]
        assert seen == [[0], buffer[:1], buffer[1:3], buffer[3:19]]
        buffer = [*section.frames, *buffer]
    assert buffer[: plan.frames - 1] == list(range(1, plan.frames))


PUBLISHED = {  # padding: first and last index of new, post, 2x, 4x
    3: [(28, 36), (37, 37), (38, 39), (40, 55)],
    2: [(19, 27), (28, 28), (29, 30), (31, 46)],
    1: [(10, 18), (19, 19), (20, 21), (22, 37)],
    0: [(1, 9), (10, 10), (11, 12), (13, 28)],
}


def test_the_published_table_of_the_inverted_model_row_by_row():
    plan = planned(INVERTED, 5, "inverted", "clamped", "zeros")
    for section, padding in zip(plan.sections, [3, 2, 2, 1, 0], strict=True):
        rows = [section.positions, *(look.positions for look in section.sees[1:])]
        assert [(row[0], row[-1]) for row in rows] == PUBLISHED[padding]
        assert section.sees[0].positions == (0,)


@pytest.mark.parametrize("n", range(1, 101))
def test_the_forward_model_sees_one_constant_table(n):
    plan = planned("f1k1_x_f16k4f2k2f1k1_g9", n, "vanilla", "clamped", "zeros")
    assert len(plan.sections) == n
    for section in plan.sections:
        assert list(section.positions) == list(range(20, 29))
        assert [(list(look.positions), look.kernel) for look in section.sees] == [
            ([0], K1),
            (list(range(1, 17)), K4),
            ([17, 18], K2),
            ([19], K1),
        ]


@pytest.mark.parametrize("n", range(1, 101))
def test_the_forward_model_reads_its_published_buffer(n):
    # 19 zeros and the start latent; new latents are appended; the last 19 are split in 16, 2, 1.
    plan = planned(VANILLA, n, "vanilla", "clamped", "zeros")
    buffer = [None] * 19 + [0]
    for section in plan.sections:
        seen = [[f if f >= 0 else None for f in look.frames] for look in section.sees]
        assert seen == [[0], buffer[-19:-3], buffer[-3:-1], buffer[-1:]]
        buffer = [*buffer, *section.frames]
    assert buffer[19:] == list(range(plan.frames))


# Each order on its own


def test_the_first_forward_section_sees_the_start_frame_as_anchor_and_as_past():
    section = planned(VANILLA, 3, "vanilla").sections[0]
    assert section.sees == (Look((0,), K1, (0,)), Look((0,), K1, (19,)))
    assert section.positions == tuple(range(20, 29))


def test_a_forward_section_reads_as_much_as_is_known():
    section = planned(VANILLA, 3, "vanilla").sections[1]
    assert section.sees == (
        Look((0,), K1, (0,)),
        Look((0, 1, 2, 3, 4, 5, 6), K4, (10, 11, 12, 13, 14, 15, 16)),
        Look((7, 8), K2, (17, 18)),
        Look((9,), K1, (19,)),
    )


def test_the_first_inverted_section_sees_the_start_frame_alone():
    section = planned(INVERTED, 6, "inverted").sections[0]
    assert section.sees == (Look((0,), K1, (0,)),)
    assert section.frames == tuple(range(46, 55))
    assert section.positions == tuple(range(28, 37))


def test_without_clamping_the_last_section_is_as_far_from_the_start_as_it_is():
    section = planned(INVERTED, 6, "inverted", "true").sections[0]
    assert section.positions == section.frames


def test_inverted_sections_need_no_anchor():
    sections = planned("g9_f1k1f2k2f16k4_td", 2, "inverted").sections
    assert sections[0].sees == ()
    assert sections[1].sees[0] == Look((10,), K1, (10,))


def test_anchors_of_several_frames_are_read_as_they_become_known():
    sections = planned("f1k1f3k2_x_f2k1_g2", 3, "vanilla").sections
    assert sections[0].sees[:-1] == (Look((0,), K1, (0,)),)
    assert sections[1].sees[:-1] == (Look((0,), K1, (0,)), Look((1, 2), K2, (1, 2)))
    assert sections[2].sees[:-1] == (Look((0,), K1, (0,)), Look((1, 2, 3), K2, (1, 2, 3)))


def test_anchors_are_read_up_to_the_first_frame_that_is_not_known():
    sections = planned("f5k2_x_f1k1_g1_x_f1k1", 9, "planned:3").sections
    assert [section.frames for section in sections[:4]] == [(3,), (6,), (9,), (1,)]
    assert [section.sees[0].frames for section in sections[:6]] == [(0,), (0,), (0,), (0,), (0, 1), (0, 1, 2, 3)]


def test_a_schedule_without_history_makes_sections_that_see_nothing():
    assert all(section.sees == () for section in planned("g9", 4, "vanilla").sections)


@pytest.mark.parametrize(("tail", "tokens"), [("ta", 2 * 4), ("tc", 1)])
def test_a_kept_tail_is_what_the_spans_of_the_past_do_not_reach(tail, tokens):
    sections = planned(f"{tail}_f1k1_x_f4k4f2k1_g9", 3, "vanilla").sections
    assert [look.tail for look in sections[0].sees] == ["", ""]
    kept = sections[1].sees[1]
    assert (kept.frames, kept.kernel, kept.tail) == ((0, 1, 2, 3), K4, tail)
    assert kept.positions == (0, 0, 0, 0)
    assert sections[2].sees[1].frames == tuple(range(13))
    grid = 60, 32 * 2
    assert kept.tokens(*grid) == (4 * tokens // 2 if tail == "ta" else tokens)


def test_a_kept_tail_of_the_future_lies_behind_the_spans():
    plan = planned("f1k1_x_g9_f1k1f2k2_tc", 3, "inverted")
    assert [look.tail for look in plan.sections[0].sees] == [""]
    tail = plan.sections[2].sees[-1]
    assert (tail.frames, tail.kernel, tail.tail) == (tuple(range(13, 28)), K2, "tc")
    assert set(tail.positions) == {13}
    true = planned("f1k1_x_g9_f1k1f2k2_tc", 3, "inverted", "true").sections[2].sees[-1]
    assert true.positions == true.frames


def test_a_deleted_tail_is_not_seen():
    assert planned("td_f1k1_g9", 3, "vanilla").sections == planned("f1k1_g9", 3, "vanilla").sections


def test_what_a_token_of_a_tail_stands_for():
    frames = tuple(range(5))
    assert Look(frames, K4, frames).pooling(60, 104) == K4
    assert Look(frames, K4, frames, "ta").pooling(60, 104) == Kernel(1, 32, 32)
    assert Look(frames, K4, frames, "tc").pooling(60, 104) == Kernel(5, 60, 104)
    assert [Look(frames, K4, frames, tail).tokens(60, 104) for tail in ("", "ta", "tc")] == [208, 40, 1]


# Lengths and what cannot be


@pytest.mark.parametrize(
    ("seconds", "n", "images"),
    [(1, 1, 37), (2, 2, 73), (5, 4, 145), (6, 5, 181), (10, 8, 289), (30, 25, 901), (60, 50, 1801), (120, 100, 3601)],
)
def test_lengths_are_those_of_the_released_program(seconds, n, images):
    assert sections_for(seconds, 30, 9) == n
    assert 4 * 9 * n + 1 == images


@untimed
@given(st.floats(0.01, 600), st.floats(1, 60), st.integers(1, 33), st.integers(1, 8))
def test_a_length_is_missed_by_half_a_section_at_most(seconds, fps, generated, ratio):
    a_section = ratio * generated / fps
    n = sections_for(seconds, fps, generated, ratio)
    assert n == 1 or abs(n * a_section - seconds) <= a_section / 2 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("schedule", "order"),
    [
        ("td_f16k4f2k2f1k1_g9", "vanilla"),
        ("g9", "vanilla"),
        (VANILLA, "vanilla"),
        (INVERTED, "inverted"),
        ("f1k1_x_g9_x_f1k1", "inverted"),
        ("td_f16k4f4k2f1k1_g9_x_f1k1", "anti_drifting"),  # the paper's own example
        (BOTH_SIDES, "anti_drifting"),
    ],
)
def test_a_schedule_says_its_order(schedule, order):
    assert default_order(parse(schedule)) == order


@pytest.mark.parametrize("schedule", ["f2k1_x_g9_f1k1", "g9_f1k1_x_f1k1", "f1k1_g9_f1k1_x_f1k1"])
def test_a_schedule_that_no_order_serves_says_what_each_needs(schedule):
    with pytest.raises(PlanError, match=r"vanilla needs .* inverted needs ") as caught:
        default_order(parse(schedule))
    assert schedule in str(caught.value)
    for order in ORDERS:
        with pytest.raises(PlanError, match="cannot serve") as caught:
            make_plan(parse(schedule), 10, order)
        assert "can be made" not in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "order", "other"), [(INVERTED, "vanilla", "inverted"), (VANILLA, "inverted", "vanilla")]
)
def test_an_order_that_cannot_serve_names_the_one_that_can(schedule, order, other):
    with pytest.raises(
        PlanError, match=f"the order {order} cannot serve .*it needs history .*on the .*; .*order {other}"
    ):
        make_plan(parse(schedule), 10, order)


def test_an_unknown_order_is_refused_with_the_known_ones():
    with pytest.raises(PlanError, match="'sideways' is unknown; there are: vanilla, inverted, planned, anti_drifting"):
        make_plan(parse(VANILLA), 10, "sideways")


@pytest.mark.parametrize("frames", [-5, 0, 1])
def test_a_video_of_nothing_but_the_start_image_is_refused(frames):
    with pytest.raises(PlanError, match=rf"{frames} latent frames cannot be made"):
        make_plan(parse(VANILLA), frames)
