"""Where absolute frame numbers become RoPE positions: the one place.

True gaps: a position is a frame number, and frames that are not known yet leave their positions blank (paper, section
3.2: random access). Clamped gaps, as models are trained on clips shorter than the videos they make:

    history on the left     a constant table: anchors from 0, spans, made frames, however far the start is
    history on the right    3, 2, 2, ..., 2, 1, 0 sections between anchors and made frames (n-1, ..., 1, 0 if n <= 4)
    a gap beside the made   as wide as it is up to 3 sections, and 3 sections where it is wider

The first two are those of the released models. With clamped gaps all frames of a tail stand where its nearest frame
does: positions do not grow with the video.

Near gaps are clamped ones, but for a section that is made beyond everything known, as endpoints are: it stands one
section behind what it sees, however far it is. What a scene looks like so soon is clear; what it looks like some time
later is not, and a model that cannot know shows several answers at once (decision 0010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longtake.schedule import Schedule

__all__ = ["Gaps", "Shifts", "clamped_gap", "find_shifts", "place_of", "tail_positions"]

Gaps = Literal["true", "clamped", "near"]
WIDEST = 3  # sections
LEAP = 1  # section between what is known and an endpoint beyond it, with near gaps


@dataclass(frozen=True, slots=True)
class Shifts:
    """Position minus frame number, for the frames that a section makes and for what it sees beside them."""

    left: int
    made: int
    right: int


def place_of(frame: int, first: int, generated: int) -> int:
    """The place in time of the section that makes a frame, where sections begin with frame `first`.

    >>> place_of(10, first=1, generated=9)
    1
    """
    return (frame - first) // generated


def clamped_gap(before: int, sections: int) -> int:
    """The gap, in sections, that a released inverted model sees where in truth it is `before` of `sections`.

    >>> [clamped_gap(before, 6) for before in (5, 4, 3, 2, 1, 0)]
    [3, 2, 2, 2, 1, 0]
    """
    if sections <= 4:
        return before
    return 3 if before == sections - 1 else min(before, 2)


def find_shifts(schedule: Schedule, made: range, every: range, left: range, right: range, gaps: Gaps) -> Shifts:
    """The shifts of a section of all those that make `every` frame, between the nearest known frames on both sides.

    >>> from longtake.schedule import parse
    >>> made, every, past = range(82, 91), range(1, 91), range(82)
    >>> find_shifts(parse("f1k1_x_f16k4f2k2f1k1_g9"), made, every, past, range(91, 91), "clamped").made + 82
    20
    >>> ending = {gaps: find_shifts(parse("f2k1_g9_x_f1k1"), made, every, range(10), range(91, 91), gaps).made + 82
    ...           for gaps in ("true", "clamped", "near")}
    >>> ending
    {'true': 82, 'clamped': 29, 'near': 11}
    """
    if gaps == "true":
        return Shifts(0, 0, 0)
    g, side = schedule.generated, schedule.left
    leaps = gaps == "near" and not right and left.stop < made.start
    widest = g * (LEAP if leaps else WIDEST)
    if side.near or not schedule.ahead:
        begin = side.far_frames + side.near_frames
        gap = min(made.start - left.stop, widest)
    else:
        begin = 1
        gap = min(g * clamped_gap(place_of(made.start, every.start, g), -(-len(every) // g)), widest)
    shift = begin + gap - made.start
    excess = max(0, right.start - made.stop - widest)
    return Shifts(begin - left.stop, shift, shift - excess)


def tail_positions(frames: range | tuple[int, ...], nearest: int, shift: int, gaps: Gaps) -> tuple[int, ...]:
    """The positions of a tail that begins beside the spans at frame `nearest`."""
    return tuple((f if gaps == "true" else nearest) + shift for f in frames)
