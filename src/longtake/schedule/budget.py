"""What schedules cost: the geometric series of the paper, its limit, and any rate between by duplication."""

from __future__ import annotations

from fractions import Fraction

from longtake.errors import ScheduleError

__all__ = ["closed_form", "duplications", "limit", "rate_of"]


def closed_form(made: int, history: int, ratio: Fraction | int = 2) -> Fraction:
    """Context length in frames' worth of tokens: S + (1 - r^-T) / (1 - r^-1) (paper, Eq. 2, in units of L_f).

    >>> closed_form(9, 3)
    Fraction(43, 4)
    """
    r = Fraction(ratio)
    if r <= 1:
        raise ScheduleError(f"a ratio of {ratio}: the series is bounded only above 1")
    return made + (1 - r**-history) / (1 - 1 / r)


def limit(made: int, ratio: Fraction | int = 2) -> Fraction:
    """What `closed_form` tends to as the history grows: S + r / (r - 1).

    >>> limit(9)
    Fraction(11, 1)
    """
    r = Fraction(ratio)
    if r <= 1:
        raise ScheduleError(f"a ratio of {ratio}: the series is bounded only above 1")
    return made + r / (r - 1)


def duplications(rate: Fraction | float | str) -> tuple[int, ...]:
    """The levels to duplicate so that a history of powers of two costs `rate` frames' worth of tokens.

    The plain series 1 + 1/2 + 1/4 + ... costs 2; each set bit of what is wanted above that duplicates one level n, which
    costs 2^-n more (paper, section 3.1: 2.625 = 2 + 1/2 + 1/8).

    >>> duplications("2.625")
    (1, 3)

    Raises:
        ScheduleError: the rate is below 2 or needs endless bits.
    """
    surplus = Fraction(rate) - 2
    if surplus < 0:
        raise ScheduleError(
            f"a rate of {float(Fraction(rate)):g}: the plain series of powers of two already costs 2; shorten the history instead"
        )
    if surplus.denominator & (surplus.denominator - 1):
        raise ScheduleError(
            f"a rate of {rate}: only sums of powers of two can be reached; the nearest eighth is {float(Fraction(round(Fraction(rate) * 8), 8)):g}"
        )
    levels: list[int] = [0] * int(surplus)
    bits = surplus - int(surplus)
    for level in range(1, bits.denominator.bit_length()):
        if bits >= Fraction(1, 2**level):
            bits -= Fraction(1, 2**level)
            levels.append(level)
    return tuple(levels)


def rate_of(levels: tuple[int, ...]) -> Fraction:
    """The rate that duplicating these levels gives; the inverse of `duplications`.

    >>> rate_of((1, 3))
    Fraction(21, 8)
    """
    return 2 + sum((Fraction(1, 2**level) for level in levels), Fraction(0))
