"""Where absolute frame numbers become RoPE positions: the one place.

Within a section a position is its frame number plus one shift, so distances are true; only the anchors on the far left
keep their numbers. True gaps: the shift is 0. Clamped gaps, as the released models were trained:

    history on the left     one constant table: anchors from 0, spans, made frames, however far the start is
    history on the right    3, 2, 2, ..., 2, 1, 0 sections between anchors and made frames (n-1, ..., 1, 0 if n <= 4)

With clamped gaps all frames of a tail stand where its nearest frame does: positions do not grow with the video.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Gaps", "clamped_gap", "future_shift", "past_shift", "tail_positions"]

Gaps = Literal["true", "clamped"]


def clamped_gap(before: int, sections: int) -> int:
    """The gap, in sections, that a released inverted model sees where in truth it is `before` of `sections`.

    >>> [clamped_gap(before, 6) for before in (5, 4, 3, 2, 1, 0)]
    [3, 2, 2, 2, 1, 0]
    """
    if sections <= 4:
        return before
    return 3 if before == sections - 1 else min(before, 2)


def past_shift(first: int, seen: int, gaps: Gaps) -> int:
    """Position minus number where frames from `first` on are made after `seen` frames of anchors and spans.

    >>> past_shift(82, 20, "clamped") + 82
    20
    """
    return {"true": 0, "clamped": seen - first}[gaps]


def future_shift(first: int, made: int, sections: int, anchors: int, gaps: Gaps) -> int:
    """Position minus number where `made` frames from `first` on are made after `anchors` and before all that follows.

    >>> future_shift(46, 9, 6, 1, "clamped") + 46
    28
    """
    return {"true": 0, "clamped": anchors + made * clamped_gap((first - 1) // made, sections) - first}[gaps]


def tail_positions(frames: range, nearest: int, shift: int, gaps: Gaps) -> tuple[int, ...]:
    """The positions of a tail whose frame next to the spans is `nearest`."""
    return tuple({"true": f, "clamped": nearest}[gaps] + shift for f in frames)
