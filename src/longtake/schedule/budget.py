"""What schedules cost: the geometric series of the paper, its limit, and schedules for any rate in between.

A rate is counted in frames' worth of tokens at k1 (L_f), padding aside: a frame costs 1 at k1, 1/8 at k2, 1/64 at k4.
"""

from __future__ import annotations

from fractions import Fraction

from longtake.errors import ScheduleError
from longtake.schedule.timeline import Kernel, Schedule, Side, Span

__all__ = ["closed_form", "duplications", "limit", "rate_of", "schedule_of"]

BASE = 1 * 2 * 2  # latent pixels of a token at k1
DEEPEST = 12  # level of the series whose token covers 128 x 128 latent pixels, a whole frame


def closed_form(made: int, history: int, ratio: Fraction | int = 2) -> Fraction:
    """Context length in frames' worth of tokens: S + (1 - r^-T) / (1 - r^-1) (paper, Eq. 2, in units of L_f).

    >>> closed_form(9, 3)
    Fraction(43, 4)

    Raises:
        ScheduleError: the ratio is not above 1.
    """
    r = _bounded(ratio)
    return made + (1 - r**-history) / (1 - 1 / r)


def limit(made: int, ratio: Fraction | int = 2) -> Fraction:
    """What `closed_form` tends to as the history grows: S + r / (r - 1).

    >>> limit(9)
    Fraction(11, 1)

    Raises:
        ScheduleError: the ratio is not above 1.
    """
    r = _bounded(ratio)
    return made + r / (r - 1)


def rate_of(schedule: Schedule) -> Fraction:
    """What a schedule's history costs, in frames' worth of tokens at k1, without padding and without its tail.

    >>> from longtake.schedule import parse
    >>> rate_of(parse("td_f16k4f2k2f1k1_g9"))
    Fraction(3, 2)
    """
    pixels = ((span.frames, span.kernel.volume) for span in schedule.spans)
    return sum((Fraction(frames * BASE, volume) for frames, volume in pixels), Fraction(0))


def duplications(rate: Fraction | float | str) -> tuple[int, ...]:
    """The levels to duplicate so that a history of powers of two costs `rate` frames' worth of tokens.

    The plain series 1 + 1/2 + 1/4 + ... costs 2; each set bit of what is wanted above that duplicates one level n,
    which costs 2^-n more (paper, section 3.1: 2.625 = 2 + 1/2 + 1/8).

    >>> duplications("2.625")
    (1, 3)

    Raises:
        ScheduleError: the rate is below 2, or finer than the series.
    """
    surplus = _dyadic(rate) - 2
    if surplus < 0:
        raise ScheduleError(f"a rate of {rate}: the plain series of powers of two costs 2; drop levels instead")
    return (0,) * int(surplus) + _bits(surplus - int(surplus))


def schedule_of(rate: Fraction | float | str, generated: int = 9) -> Schedule:
    """A schedule whose history costs `rate` frames' worth of tokens, older frames each half as much as the one after.

    From 2 on the whole series is there, its last level once more for all that would follow, and `duplications` on top;
    below 2 the levels that are not in the rate's binary digits are dropped. `rate_of` is the inverse.

    >>> str(schedule_of("2.625")), str(schedule_of("1.75", generated=4))
    ('f3k1h4w8f1k1h4w4f2k1h2w4f1k1_g9', 'f1k1h4w4f1k1h2w4f1k1_g4')

    Raises:
        ScheduleError: the rate is not above 0, or finer than the series.
    """
    exact = _dyadic(rate)
    if exact <= 0:
        raise ScheduleError(
            f"a rate of {rate}: a history costs more than nothing; a schedule without one is g{generated}"
        )
    if exact < 2:
        levels = (0,) * int(exact) + _bits(exact - int(exact))
    else:
        extra = duplications(exact)
        last = max(extra, default=0)
        levels = (*range(last + 1), last, *extra)
    spans = [
        Span(levels.count(n), Kernel(1, 2 << n // 2, 2 << (n + 1) // 2)) for n in sorted(set(levels), reverse=True)
    ]
    return Schedule(Side(tuple(spans)), generated, Side())


def _bounded(ratio: Fraction | int) -> Fraction:
    if ratio <= 1:
        raise ScheduleError(f"a ratio of {ratio}: the series is bounded only above 1")
    return Fraction(ratio)


def _dyadic(rate: Fraction | float | str) -> Fraction:
    """The rate as a fraction, if it is a sum of powers of two that the series has."""
    try:
        exact = Fraction(rate)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ScheduleError(f"a rate of {rate}: expected a number such as 2.625") from error
    steps = 2**DEEPEST
    if (exact * steps).denominator != 1:
        near = Fraction(round(exact * steps), steps)
        raise ScheduleError(
            f"a rate of {rate}: it has to be a multiple of 1/{steps}, the finest level; the nearest is {float(near)}"
        )
    return exact


def _bits(part: Fraction) -> tuple[int, ...]:
    """The levels n whose 2^-n add up to a fraction below 1."""
    return tuple(n for n in range(1, DEEPEST + 1) if int(part * 2**n) % 2)
