from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from longtake.errors import StoryboardError
from longtake.plan import (
    BOTH_SIDES,
    INVERTED,
    Cue,
    KeyImage,
    Snap,
    Storyboard,
    Told,
    check_reached,
    compile_storyboard,
    make_plan,
    read_storyboard,
    sections_that_see,
)
from longtake.schedule import parse


def compiled(board, sections=4):
    """For sections of 36 images, 12 a second: 3 s each."""
    return compile_storyboard(board, sections, generated=9, temporal_ratio=4, fps=12.0)


def told(text, sections=4):
    return compiled(read_storyboard(text), sections).told


@st.composite
def takes(draw, ends=False):
    """Times of prompts that follow each other, some with an end, and the number of sections."""
    times = list(accumulate(draw(st.lists(st.integers(100, 900), max_size=7)), initial=draw(st.integers(0, 400))))
    sections = times[-1] // 300 + draw(st.integers(1, 3))  # times are hundredths of a second
    spans = pairwise([*times, 300 * sections])
    until = [draw(st.none() | st.integers(min(b, a + 100), b)) if ends else None for a, b in spans]
    return sections, [(a / 100, b and b / 100) for a, b in zip(times, until, strict=True)]


def board_of(spans):
    return Storyboard(tuple(Cue(a, b, prompt=f"prompt {n}") for n, (a, b) in enumerate(spans)), prompt="main")


def heard(sections, spans):
    """The script, where each prompt reaches a section."""
    try:
        return compiled(board_of(spans), sections)
    except StoryboardError as error:
        assume("reaches no section" not in str(error))
        raise


@given(takes(ends=True))
def test_every_section_has_one_prompt_and_every_prompt_is_heard(take):
    sections, spans = take
    prompts = [told.prompt for told in heard(*take).told]
    assert len(prompts) == sections
    assert {f"prompt {n}" for n in range(len(spans))} <= {*prompts} <= {"main", *(f"prompt {n}" for n in range(8))}
    numbers = [int(prompt[7:]) for prompt in prompts if prompt != "main"]
    assert numbers == sorted(numbers)


@given(takes())
def test_a_prompt_begins_at_most_half_a_section_from_where_it_was_asked(take):
    for snap in heard(*take).snaps:
        assert abs(snap.got - snap.asked) <= 1.5 + 1e-6
        assert snap.got % 3 == 0


@given(takes(ends=True))
def test_a_time_moves_by_at_most_two_thirds_of_a_section_where_a_pause_is_too_short_to_be_heard(take):
    for snap in heard(*take).snaps:
        assert abs(snap.got - snap.asked) <= 2 + 1e-6


@given(takes(ends=True))
def test_a_section_takes_what_covers_most_of_it(take):
    sections, spans = take
    following = pairwise([*spans, (3.0 * sections, None)])
    pieces = [(a, b if until is None else until) for (a, until), (b, _) in following]
    for place, told in enumerate(heard(*take).told):
        cover = {
            f"prompt {n}": max(0.0, min(end, 3 * place + 3) - max(begin, 3 * place))
            for n, (begin, end) in enumerate(pieces)
        }
        cover["main"] = 3 - sum(cover.values())
        assert cover[told.prompt] >= max(cover.values()) - 1e-6


@given(st.floats(1.5, 40), st.integers(1, 12))
def test_a_key_image_moves_by_at_most_half_a_section(at, sections):
    assume(at < 3 * sections + 1.5)
    script = compiled(Storyboard((Cue(at, image=Path("a.png")),)), sections)
    (key,) = script.keys
    assert abs(key.seconds - at) <= 1.5
    assert (key.frame - 1) % 9 == 0
    assert key.frame == 1 + 3 * key.seconds
    assert [(snap.asked, snap.got) for snap in script.snaps] == ([(at, key.seconds)] if at != key.seconds else [])


@pytest.mark.parametrize(("g", "ratio", "fps"), [(9, 4, 30.0), (9, 4, 29.97), (4, 8, 24.0), (1, 1, 7.0)])
def test_sections_are_as_long_as_their_images(g, ratio, fps):
    """36 images at 30 a second are 1.2 s; a sum of floats is not a time of its own."""
    seconds = g * ratio / fps
    board = Storyboard(tuple(Cue(n * seconds, prompt=f"{n}") for n in range(50)))
    script = compile_storyboard(board, 50, g, ratio, fps)
    assert [told.prompt for told in script.told] == [f"{n}" for n in range(50)]
    assert (script.snaps, script.seconds) == ((), seconds)


def test_a_prompt_holds_until_the_next_or_to_its_end():
    assert [t.prompt for t in told("main\n0s: a\n3s-6s: b\n9s: c")] == ["a", "b", "main", "c"]
    assert [t.prompt for t in told("3s: a")] == ["", "a", "a", "a"]
    assert told("main") == (Told("main"),) * 4


def test_of_two_that_cover_the_same_the_later_is_heard():
    assert [t.prompt for t in told("0s: a\n4.5s: b")] == ["a", "b", "b", "b"]
    assert [t.prompt for t in told("main\n4.5s: b")] == ["main", "b", "b", "b"]
    assert [t.prompt for t in told("main\n0s-4.5s: a")] == ["a", "main", "main", "main"]


def test_a_prompt_of_no_length_is_not_lost_in_silence():
    first, second = Cue(3.0, prompt="a"), Cue(3.0 + 1e-12, prompt="b")
    with pytest.raises(StoryboardError, match=r"\[3s: a\] reaches no section"):
        compiled(Storyboard((first, second)))


def test_a_pause_before_and_after_an_entry_counts_as_one():
    with pytest.raises(StoryboardError, match="reaches no section"):
        told("main\n4s-5.4s: a")
    assert [t.prompt for t in told("main\n4s-5.6s: a")] == ["main", "a", "main", "main"]


def test_seeds_and_guidance_hold_by_themselves():
    script = told("0s seed=0: a\n3s guidance=2\n6s-9s seed=5\n9s: b")
    assert script == (Told("a", 0), Told("a", 0, 2.0), Told("a", 5, 2.0), Told("b", None, 2.0))


def test_what_snapped_is_said_in_time_order_and_once():
    first, second = Cue(1.0, 8.5, prompt="a", seed=4), Cue(8.9, prompt="b", guidance=3.0, image=Path("a.png"))
    assert compiled(Storyboard((second, first))).snaps == (
        Snap(first, 1.0, 0.0),
        Snap(first, 8.5, 9.0),
        Snap(second, 8.9, 9.0),
    )


def test_a_loop_ends_where_it_starts():
    board = read_storyboard("0s image=a.png: it rolls\n6s image=b.png\nloop")
    assert compiled(board).keys == (KeyImage(19, 6.0, Path("b.png")), KeyImage(37, 12.0, Path("a.png")))


def test_an_end_or_an_image_may_lie_half_a_section_behind_the_video():
    script = compiled(read_storyboard("0s-13.4s: a\n13s image=a.png"))
    assert [key.seconds for key in script.keys] == [12.0]
    assert [snap.got for snap in script.snaps] == [12.0, 12.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0s-4s: a\n3s: b", "[0s-4s: a] and [3s: b] overlap; let one end before the other begins"),
        ("3s: a\n3s: b", "[3s: a] and [3s: b] overlap"),
        ("3s seed=1\n2s-4s seed=2", "[2s-4s seed=2] and [3s seed=1] overlap"),
        ("12s: a", "[12s: a]: the video ends at 12 s; one of 15 s would do"),
        ("20s guidance=2", "[20s guidance=2]: the video ends at 12 s; one of 24 s would do"),
        ("6s-14s: a", "[6s-14s: a]: the video ends at 12 s; one of 15 s would do"),
        ("13.5s image=a.png", "[13.5s image=a.png]: the video ends at 12 s; one of 15 s would do"),
        ("4s-5s: a", "[4s-5s: a] reaches no section: each is 3 s long and hears what covers most of it; 3s-6s would"),
        ("0s: a\n3s: b\n4s: c\n5s: d", "[3s: b] reaches no section"),
        ("1s image=a.png", "[1s image=a.png]: the first section ends at 3s, which would do; 0s is the start image"),
        ("3s image=a.png\n4s seed=1 image=b.png", "are both at 3 s; images can be 3 s apart"),
        ("0s image=a.png\n11s image=b.png\nloop", "[11s image=b.png] and [loop] are both at 12 s"),
        ("loop", "[loop]: the video would end at its start image, and there is none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_video_is_refused_with_what_would_do(text, said):
    with pytest.raises(StoryboardError) as caught:
        told(text)
    assert said in str(caught.value)


def planned(keys, order, schedule=BOTH_SIDES, sections=9):
    """A script with images after so many sections each, and its plan."""
    script = compiled(Storyboard(tuple(Cue(3.0 * n, image=Path(f"{n}.png")) for n in keys)), sections)
    frames = 1 + 9 * sections
    return script, make_plan(parse(schedule), frames, order, given=[key.frame for key in script.keys])


@given(st.sets(st.integers(1, 9)), st.sampled_from(["vanilla", "planned", "planned:4,2", "anti_drifting"]))
def test_an_image_is_reached_where_the_section_before_it_is_made_first(keys, order):
    script, plan = planned(keys, order)
    made = [section.frames[0] // 9 for section in plan.sections]
    lost = [n for n in keys if n < 9 and made.index(n) < made.index(n - 1)]
    assert not (lost and order == "vanilla")
    if lost:
        said = rf"{min(lost)}\.png at {3 * min(lost)} s: in the order {order} the section .* order vanilla would do"
        with pytest.raises(StoryboardError, match=said):
            check_reached(script, plan)
    else:
        check_reached(script, plan)


def test_an_inverted_video_reaches_an_image_at_its_end_only():
    check_reached(*planned([9], "inverted", INVERTED))
    with pytest.raises(StoryboardError, match=r"4\.png at 12 s: in the order inverted"):
        check_reached(*planned([4, 9], "inverted", INVERTED))


def test_an_image_is_seen_from_afar_until_what_follows_it_is_made():
    script, plan = planned([3, 9], "vanilla")
    seen = [[section.index for section in sections_that_see(plan, key.frame)] for key in script.keys]
    assert seen == [[0, 1, 2], [3, 4, 5, 6, 7, 8]]


@pytest.mark.parametrize(("at", "enough"), [(12, 15), (13, 15), (13.5, 18), (14.99, 18), (15, 18), (100, 102)])
def test_the_length_that_would_do_is_long_enough(at, enough):
    with pytest.raises(StoryboardError, match=f"one of {enough} s would do"):
        told(f"{at}s: a")
    assert told(f"{at}s: a", enough // 3)[-1].prompt == "a"
