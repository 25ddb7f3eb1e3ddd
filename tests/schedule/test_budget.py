from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import ScheduleError
from longtake.schedule import closed_form, duplications, limit, parse, rate_of, schedule_of

untimed = settings(deadline=None)  # a test asserts no wall-clock time

ratios = st.fractions(Fraction(9, 8), 8, max_denominator=16)


@untimed
@given(st.integers(1, 40), st.integers(0, 40), ratios)
def test_the_closed_form_is_the_sum_of_its_terms(made, history, ratio):
    assert closed_form(made, history, ratio) == made + sum((ratio**-i for i in range(history)), Fraction(0))


@untimed
@given(st.integers(1, 40), st.integers(0, 60), ratios)
def test_context_stays_below_its_limit_and_tends_to_it(made, history, ratio):
    rest = limit(made, ratio) - closed_form(made, history, ratio)
    assert rest == ratio**-history * ratio / (ratio - 1)
    assert rest > 0


def test_a_history_of_ten_thousand_frames_costs_less_than_two():
    assert 2 - (closed_form(9, 10_000) - 9) < Fraction(1, 2**9000)


@pytest.mark.parametrize("ratio", [1, 0, -2, Fraction(1, 2)])
@pytest.mark.parametrize(
    "series", [lambda r: limit(9, r), lambda r: closed_form(9, 3, r)], ids=["limit", "closed form"]
)
def test_a_series_that_does_not_converge_is_refused(series, ratio):
    with pytest.raises(ScheduleError, match="bounded only above 1"):
        series(ratio)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("f16k4f2k2f1k1_g9", "1.5"), ("f16k4f4k2f1k1_g9", "1.75"), ("f8k8f4k4f2k2f1k1_g9", "1.328125"), ("g9", "0")],
)
def test_rates_are_those_of_the_paper(name, rate):
    assert rate_of(parse(name)) == Fraction(rate)


def test_the_example_of_the_paper_duplicates_a_half_and_an_eighth():
    assert duplications(2.625) == (1, 3)
    assert duplications(2) == ()
    assert duplications("4.25") == (0, 0, 2)


rates = st.integers(1, 6 * 2**12).map(lambda n: Fraction(n, 2**12))


@untimed
@given(rates)
def test_a_rate_becomes_a_schedule_and_back(rate):
    schedule = schedule_of(rate)
    assert rate_of(schedule) == rate
    assert parse(str(schedule)) == schedule


@untimed
@given(rates.filter(lambda rate: rate >= 2))
def test_from_two_on_no_level_is_missing_and_older_is_coarser(rate):
    spans = schedule_of(rate).left.near
    volumes = [span.kernel.t * span.kernel.h * span.kernel.w for span in spans]
    assert volumes == [4 * 2**n for n in reversed(range(len(spans)))]


@untimed
@given(rates.filter(lambda rate: rate >= 2))
def test_duplications_are_what_lies_above_two(rate):
    assert sum(Fraction(1, 2**n) for n in duplications(rate)) == rate - 2


@untimed
@given(st.integers(1, 12))
def test_a_plain_series_is_the_closed_form(history):
    rate = closed_form(9, history) - 9
    assert sum(span.frames for span in schedule_of(rate).spans) == history


def test_a_section_can_have_any_length():
    assert schedule_of(1, generated=4) == parse("f1k1_g4")


@pytest.mark.parametrize("rate", ["1.5", 0, Fraction(-3)])
def test_below_two_nothing_is_duplicated(rate):
    with pytest.raises(ScheduleError, match="drop levels"):
        duplications(rate)


@pytest.mark.parametrize("rate", [0, -1.5])
def test_a_history_that_costs_nothing_is_refused(rate):
    with pytest.raises(ScheduleError, match="costs more than nothing"):
        schedule_of(rate)


def test_a_rate_finer_than_the_series_is_refused_with_the_nearest():
    with pytest.raises(ScheduleError, match=r"a rate of 2\.1: .*1/4096.* 2\.10009765625"):
        schedule_of(2.1)
    with pytest.raises(ScheduleError, match="nearest"):
        duplications("7/3")


@pytest.mark.parametrize("rate", ["two", float("nan"), float("inf"), "1/0"])
def test_what_is_no_number_is_refused(rate):
    with pytest.raises(ScheduleError, match="expected a number"):
        schedule_of(rate)
