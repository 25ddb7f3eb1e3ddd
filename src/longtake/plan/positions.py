"""Where absolute frame numbers become RoPE positions: the one place (research: released models clamp their gaps).

True gaps: a frame's position is its number. Clamped gaps, as the released models were trained:

    past on the left    one constant table: far spans from 0, near spans, made frames, whatever the distance to the start
    future on the right the gap between start and made frames is 3, 2, 2, ..., 2, 1, 0 sections (n - 1, ..., 1, 0 up to 4)
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Gaps", "clamped_gap"]

Gaps = Literal["true", "clamped"]


def clamped_gap(before: int, sections: int) -> int:
    """The gap, in sections, that a released inverted model sees when `before` sections lie between start and made frames.

    >>> [clamped_gap(before, 6) for before in (5, 4, 3, 2, 1, 0)]
    [3, 2, 2, 2, 1, 0]
    """
    if sections <= 4:
        return before
    return 3 if before == sections - 1 else min(before, 2)
