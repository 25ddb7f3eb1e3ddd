import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.packing.importance import Compared, Importance, rank, score
from longtake.plan import make_plan
from longtake.schedule import parse

SCHEDULES = {
    "td_f1k1_x_f16k4f2k2f1k1_g9": "vanilla",
    "ta_f1k1_x_f4k4f2k2f1k1_g3": "vanilla",
    "tc_f4k2f1k1_g3": "vanilla",
    "f1k1_g4": "vanilla",
    "f1k1_x_g9_f1k1f2k2f16k4_td": "inverted",
    "f1k1_x_g3_f1k1f2k2f4k4_ta": "inverted",
    "g3_f1k1f2k2_tc": "inverted",
    "td_f1k1_x_f4k4f2k2f1k1_g3_x_f1k1f2k2": "planned",
    "ta_f1k1_x_f4k4f2k2f1k1_g3_x_f1k1f2k2": "anti_drifting",
}
choices = {
    "name": st.sampled_from(sorted(SCHEDULES)),
    "sections": st.integers(1, 12),
    "gaps": st.sampled_from(["true", "clamped"]),
    "missing": st.sampled_from(["absent", "zeros"]),
}


def plan_of(name, sections, gaps, missing):
    schedule = parse(name)
    return make_plan(schedule, 1 + schedule.generated * sections, SCHEDULES[name], gaps, missing)


def known_before(plan, section):
    return {0, *(f for earlier in plan.sections[: section.index] for f in earlier.frames)}


def nearness(section, known):
    first, last = section.frames[0], section.frames[-1]
    return {f: -float(max(first - f, f - last)) for f in known}


@settings(deadline=None, max_examples=60)
@given(**choices)
def test_ranking_by_nearness_gives_the_plans_own_looks(name, sections, gaps, missing):
    plan = plan_of(name, sections, gaps, missing)
    for section in plan.sections:
        if plan.order in ("vanilla", "inverted"):  # the others plan only the nearest run of neighbors
            assert rank(section, plan, nearness(section, known_before(plan, section))) == section


@settings(deadline=None, max_examples=120)
@given(seed=st.integers(0, 99), **choices)
def test_any_ranking_is_a_permutation_into_the_same_spans(name, sections, gaps, missing, seed):
    plan, draw = plan_of(name, sections, gaps, missing), np.random.default_rng(seed)
    room = sum(span.frames for span in plan.schedule.spans)
    for section in plan.sections:
        known = sorted(known_before(plan, section))
        ranked = rank(section, plan, dict(zip(known, draw.permutation(len(known)).tolist(), strict=True)))
        assert (ranked.index, ranked.frames, ranked.positions) == (section.index, section.frames, section.positions)
        spans = [look for look in ranked.sees if not look.tail]
        assert sum(look.tokens(12, 20) for look in spans) <= plan.schedule.context_tokens(12, 20)
        if plan.order in ("vanilla", "inverted"):
            sizes, planned = ([(len(x.frames), x.kernel, x.tail) for x in one.sees] for one in (ranked, section))
            assert sizes == planned
        positions = [p for look in section.sees for p in look.positions]
        for look in ranked.sees:
            assert list(look.frames) == sorted(set(look.frames))
            assert list(look.positions) == sorted(look.positions)
            if gaps == "true":
                assert look.positions == look.frames
            elif (
                len(positions) >= room
            ):  # the plan fills its spans: nothing stands outside of what they were trained on
                assert min(positions) <= look.positions[0] <= look.positions[-1] <= max(positions)


def scored(plan, section, best):
    """The section where these frames have the highest scores, in this order, and all others fall with their age."""
    scores = nearness(section, known_before(plan, section))
    return rank(section, plan, scores | {f: 100.0 - place for place, f in enumerate(best)})


def test_the_finest_spans_read_the_highest_scores_and_anchors_stay():
    plan = make_plan(parse("td_f1k1_x_f4k4f2k2f1k1_g3"), 31)
    section = plan.sections[-1]
    anchor, coarse, middle, fine = scored(plan, section, [7, 20, 11]).sees
    assert (anchor, fine.frames, middle.frames) == (section.sees[0], (7,), (11, 20))
    assert coarse.frames == (24, 25, 26, 27)


def test_positions_are_the_frames_own_and_end_where_the_spans_end():
    section = make_plan(parse("td_f1k1_x_f4k4f2k2f1k1_g3"), 31, gaps="clamped").sections[-1]
    assert [look.positions for look in section.sees] == [(0,), (1, 2, 3, 4), (5, 6), (7,)]
    clamped = scored(make_plan(parse("td_f1k1_x_f4k4f2k2f1k1_g3"), 31), section, [7, 20, 23, 2, 26])
    # Frame 27 is the nearest, at position 7; frames before 21 would lie before position 1, where the spans end.
    assert [(x.frames, x.positions) for x in clamped.sees[1:]] == [
        ((2, 25, 26, 27), (1, 5, 6, 7)),
        ((20, 23), (1, 3)),
        ((7,), (1,)),
    ]
    true = make_plan(parse("td_f1k1_x_f4k4f2k2f1k1_g3"), 31, gaps="true")
    assert all(x.frames == x.positions for x in scored(true, true.sections[-1], [7, 20, 2]).sees)


def test_the_right_side_ends_at_its_own_end():
    plan = make_plan(parse("f1k1_x_g3_f1k1f2k2_ta"), 31, "inverted")
    section = plan.sections[3]
    ranked = scored(plan, section, [30])
    fine, middle, tail = ranked.sees[1:]
    own, further, last = (x.positions for x in section.sees[1:])
    assert (fine.frames, fine.positions) == ((30,), further[-1:])
    assert (middle.frames, middle.positions) == ((22, 23), (*own, further[0]))
    assert (tail.frames, set(tail.positions)) == ((24, 25, 26, 27, 28, 29), {further[-1], last[0]})


def test_a_frame_left_out_by_the_ranking_is_the_tail():
    plan = make_plan(parse("tc_f2k2f1k1_g3"), 13)
    tail, middle, fine = scored(plan, plan.sections[-1], [0, 1, 2]).sees
    assert (fine.frames, middle.frames) == ((0,), (1, 2))
    assert (tail.frames, tail.tail, tail.kernel) == (tuple(range(3, 10)), "tc", middle.kernel)


def test_a_planned_section_also_reads_what_lies_behind_a_gap():
    plan = make_plan(parse("td_f1k1_x_f4k4f2k2f1k1_g3_x_f1k1f2k2"), 28, "planned:3")
    section = next(s for s in plan.sections if s.frames[0] == 16)
    assert 3 not in {f for look in section.sees for f in look.frames}
    assert (3,) in [look.frames for look in scored(plan, section, [3]).sees]


# Scores


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compared(frames, estimate, apart=10.0):
    return Compared(frames, torch.arange(float(len(frames))), estimate, begins=float(len(frames)) - 1 + apart)


@pytest.mark.parametrize("compare", ["first", "best", "mean"])
def test_a_copy_of_the_estimate_is_the_most_similar(compare):
    frames = drawn(6, 4, 3, 5)
    estimate = frames[2:3].expand(3, -1, -1, -1)
    similar = score(compared(frames, estimate), Importance("similarity", compare=compare))
    assert similar.argmax() == 2
    assert similar[2] == pytest.approx(1.0)
    brighter = score(compared(7 * frames, estimate), Importance("similarity", compare=compare))
    torch.testing.assert_close(brighter, similar)  # a cosine knows no length


def test_what_is_compared_is_the_first_the_best_or_the_mean_of_the_estimates_frames():
    frames, estimate = drawn(6, 4, 3, 5), drawn(3, 4, 3, 5, seed=1)
    alone = torch.stack([score(compared(frames, one[None]), Importance("similarity")) for one in estimate])
    for compare, expected in (("first", alone[0]), ("best", alone.amax(0)), ("mean", alone.mean(0))):
        torch.testing.assert_close(
            score(compared(frames, estimate), Importance("similarity", compare=compare)), expected
        )


def test_similarity_is_a_mean_over_pixels():
    frame = torch.zeros(1, 2, 1, 4)
    frame[0, 0] = 1.0
    half = frame.clone()
    half[0, :, 0, :2] = torch.tensor([0.0, 3.0])[:, None]  # two of four pixels at a right angle
    assert score(compared(half, frame), Importance("similarity")).item() == pytest.approx(0.5)


def test_hybrid_is_similarity_and_lambda_times_time():
    frames, estimate = drawn(6, 4, 3, 5), drawn(3, 4, 3, 5, seed=1)
    known = compared(frames, estimate, apart=0.5)
    by = {name: score(known, Importance(name, time_weight=0.3)) for name in ("time", "similarity", "hybrid")}
    torch.testing.assert_close(by["hybrid"], by["similarity"] + 0.3 * by["time"])
    torch.testing.assert_close(by["time"][-1], torch.tensor(-0.25).exp())
    assert (by["time"].diff() > 0).all()


def test_black_frames_are_like_nothing():
    assert score(compared(torch.zeros(2, 4, 3, 5), drawn(1, 4, 3, 5)), Importance("similarity")).tolist() == [0.0, 0.0]
