import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longtake.errors import ScheduleError
from longtake.schedule import Kernel, Schedule, Side, Span, parse

untimed = settings(deadline=None)  # a test asserts no wall-clock time

numbers = st.integers(1, 999_999)
kernels = st.one_of(st.integers(1, 499_999).map(lambda n: (n, 2 * n, 2 * n)), st.tuples(numbers, numbers, numbers))
packings = st.lists(st.tuples(numbers, kernels), min_size=1, max_size=5)
sides = st.one_of(
    st.tuples(packings, packings | st.just([]), st.sampled_from([None, "td", "ta", "tc"])),
    st.tuples(st.just([]), packings | st.just([]), st.none()),
)


def a_side(near, far, tail):
    # Built in the test: while hypothesis draws, the type checks of a constructor may not roll their dice.
    return Side(*(tuple(Span(n, Kernel(*sizes)) for n, sizes in spans) for spans in (near, far)), tail)


@untimed
@given(sides, numbers, sides, st.booleans())
def test_a_name_is_its_data(left, made, right, discrete):
    schedule = Schedule(a_side(*left), made, a_side(*right), discrete)
    assert parse(str(schedule)) == schedule


PAPER = {
    "td_f16k4f4k2f1k1_g9": Schedule(
        Side((Span(16, Kernel(4, 8, 8)), Span(4, Kernel(2, 4, 4)), Span(1, Kernel(1, 2, 2))), tail="td"), 9, Side()
    ),
    "td_f16k4f4k2f1k1_g9+D": Schedule(
        Side((Span(16, Kernel(4, 8, 8)), Span(4, Kernel(2, 4, 4)), Span(1, Kernel(1, 2, 2))), tail="td"),
        9,
        Side(),
        True,
    ),
    "td_f16k4f4k2f1k1_g9_x_f1k1": Schedule(
        Side((Span(16, Kernel(4, 8, 8)), Span(4, Kernel(2, 4, 4)), Span(1, Kernel(1, 2, 2))), tail="td"),
        9,
        Side(far=(Span(1, Kernel(1, 2, 2)),)),
    ),
    "f1k1_x_g9_f1k1f4k2f16k4_td": Schedule(
        Side(far=(Span(1, Kernel(1, 2, 2)),)),
        9,
        Side((Span(1, Kernel(1, 2, 2)), Span(4, Kernel(2, 4, 4)), Span(16, Kernel(4, 8, 8))), tail="td"),
    ),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_names_of_the_paper_mean_what_it_says(name):
    assert parse(name) == PAPER[name]
    assert str(parse(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "g1",
        "f1k1_g9",
        "f1k1_x_g9",
        "g9_f1k1",
        "g9_x_f1k1",
        "g4+D_f1k1_tc",
        "ta_f8k8f4k4f2k2f1k1_g9",
        "tc_f1k1_x_f16k4f2k2f1k1_g9",
        "ta_f1k1_x_f2k1_g9_f2k1_x_f1k1_tc",
        "f4k1h8w8f1k1_g9",
        "f16k16_g33",
    ],
)
def test_every_form_is_read_and_written_without_loss(name):
    assert str(parse(name)) == name


@pytest.mark.parametrize(
    ("name", "written"),
    [("f1k1h2w2_g9", "f1k1_g9"), ("f2k2h4w4f1k1_g9+d", "f2k2f1k1_g9+D"), ("f16k4h8w8_g1", "f16k4_g1")],
)
def test_what_can_be_said_twice_is_written_in_the_shorter_way(name, written):
    assert str(parse(name)) == written
    assert parse(name) == parse(written)


def test_a_long_kernel_is_not_a_short_one():
    (span,) = parse("f3k1h4w2_g9").left.near
    assert span == Span(3, Kernel(1, 4, 2))


PART = "expected f<n>k<n>, g<n>, x, td, ta or tc"
NUMBER = "expected a number from 1 to 999999"


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("f16k4_q2_g9", 6, PART),
        ("", 0, PART),
        ("_g9", 0, PART),
        ("g9_", 3, PART),
        ("f1k1__g9", 5, PART),
        ("F1k1_g9", 0, PART),
        (" g9", 0, PART),
        ("k1_g9", 0, PART),
        ("t_g9", 0, PART),
        ("f16q4_g9", 3, "expected k<n>"),
        ("f16_g9", 3, "expected k<n>"),
        ("fk4_g9", 1, NUMBER),
        ("f0k4_g9", 1, NUMBER),
        ("f01k4_g9", 1, NUMBER),
        ("f-1k4_g9", 1, NUMBER),
        ("f1000000k4_g9", 1, NUMBER),
        ("f\u0661k4_g9", 1, NUMBER),  # a digit, but not one of 0 to 9
        ("f16k_g9", 4, NUMBER),
        ("f16k4h_g9", 6, NUMBER),
        ("f16k4h8_g9", 7, "expected w<n>"),
        ("f16k4h8wx_g9", 8, NUMBER),
        ("f16k4h8w8h8_g9", 9, "expected f<n>k<n>, _ or the end"),
        ("f16k4,f2k2_g9", 5, "expected f<n>k<n>, _ or the end"),
        ("f1k1_g9f1k1", 7, "expected +D, _ or the end"),
        ("f1k1_g9+x", 7, "expected +D, _ or the end"),
        ("f1k1_g9+DD", 9, "expected _ or the end"),
        ("f1k1_g9 ", 7, "expected +D, _ or the end"),
        ("f1k1_g", 6, NUMBER),
        ("f1k1_xg9", 6, "expected _ or the end"),
        ("tdf1k1_g9", 2, "expected _ or the end"),
        ("f1k1", 4, "expected _g<n>, the frames that a section makes"),
        ("td_x", 4, "expected _g<n>, the frames that a section makes"),
        ("f1k1_g9_g4", 8, "a section makes frames in one place: there is a g already"),
        ("x_f1k1_g9", 0, "expected f<n>k<n> on the outer side of x"),
        ("f1k1_g9_x", 8, "expected f<n>k<n> on the outer side of x"),
        ("td_x_g9", 3, "expected f<n>k<n> on the outer side of x"),
        ("f1k1_x_x_g9", 7, "this side has an x already"),
        ("f1k1_x_f1k1_x_g9", 12, "this side has an x already"),
        ("g9_f1k1_x_f1k1_x_f1k1", 8, "this side has an x already"),
        ("f1k1_td_g9", 5, "a tail stands at the outer end of its side"),
        ("g9_td_f1k1", 3, "a tail stands at the outer end of its side"),
        ("td_ta_f1k1_g9", 3, "a tail stands at the outer end of its side"),
        ("f1k1_f2k2_g9", 5, "expected x between two packings, or no _"),
        ("g9_f1k1_f2k2", 8, "expected x between two packings, or no _"),
        ("f1k1_x_f1k1_f2k2_g9", 12, "expected x between two packings, or no _"),
        ("td_g9", 0, "a tail is what the spans next to g do not reach: there are none"),
        ("ta_f1k1_x_g9", 0, "a tail is what the spans next to g do not reach: there are none"),
        ("td_f1k1_g9_td", 11, "a tail is what the spans next to g do not reach: there are none"),
    ],
)
def test_an_error_points_at_the_character(name, at, expected):
    with pytest.raises(ScheduleError) as caught:
        parse(name)
    assert str(caught.value) == f"{name}\n{' ' * at}^ {expected}"


alphabet = st.text(st.sampled_from("fkghwxtdac+D_0123456789 \n\u00e9"), max_size=30)


@untimed
@given(alphabet | st.text(max_size=20))
@example("f1k1\n_g9")
@example("f" + "9" * 5000 + "k1_g9")
def test_anything_is_read_or_refused_with_one_caret(name):
    try:
        schedule = parse(name)
    except ScheduleError as error:
        shown, _, pointer = str(error).partition("\n")
        assert len(shown) == len(name)
        assert 0 <= len(pointer) - len(pointer.lstrip()) <= len(name)
        assert pointer.lstrip().startswith("^ ")
    else:
        assert parse(str(schedule)) == schedule
