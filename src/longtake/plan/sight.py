"""What a section sees of the frames that are known when its turn comes."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from typing import Literal

from longtake.plan.positions import Gaps, find_shifts, tail_positions
from longtake.plan.section import Look, Section
from longtake.schedule import Schedule, Side, Span

__all__ = ["Known", "Missing", "see"]

Missing = Literal["absent", "zeros"]


class Known:
    """The numbers of frames that are known, as runs of neighbors.

    >>> known = Known([range(1), range(9, 10), range(1, 2)])
    >>> known.before(9), known.after(4), known.runs
    (range(0, 2), range(9, 10), (range(0, 2), range(9, 10)))
    """

    def __init__(self, runs: Iterable[range] = ()) -> None:
        self._runs: list[range] = []  # in time order; no two touch
        for run in runs:
            self.add(run)

    @property
    def runs(self) -> tuple[range, ...]:
        """All known frames, as runs of neighbors in time order."""
        return tuple(self._runs)

    def add(self, frames: range) -> None:
        """Frames that have become known; some of them may have been known before."""
        first = bisect(self._runs, frames.start - 1, key=lambda run: run.stop - 1)
        first -= first > 0 and self._runs[first - 1].stop == frames.start
        last = bisect(self._runs, frames.stop, key=lambda run: run.start)
        touched = self._runs[first:last]
        start = min([frames.start, *(run.start for run in touched)])
        stop = max([frames.stop, *(run.stop for run in touched)])
        self._runs[first:last] = [range(start, stop)]

    def before(self, frame: int) -> range:
        """The run that ends nearest before a frame, without what follows; empty before that frame if there is none."""
        at = bisect(self._runs, frame - 1, key=lambda run: run.start)
        if not at:
            return range(frame, frame)
        run = self._runs[at - 1]
        return range(run.start, min(run.stop, frame))

    def after(self, frame: int) -> range:
        """The run that begins nearest at or after a frame; empty at that frame if there is none."""
        at = bisect(self._runs, frame, key=lambda run: run.stop)
        if at == len(self._runs):
            return range(frame, frame)
        run = self._runs[at]
        return range(max(run.start, frame), run.stop)

    def beyond(self, below: int, above: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All known frames before `below`, and all from `above` on."""
        frames = [f for run in self._runs for f in run]
        return tuple(f for f in frames if f < below), tuple(f for f in frames if f >= above)


def see(
    index: int, made: range, every: range, schedule: Schedule, known: Known, gaps: Gaps, missing: Missing
) -> Section:
    """The section that makes the frames `made` of `every` one to be made, with its looks in the order of their tokens.

    Far spans on the left show the first frames of the video, wherever the section is. All others show the known frames
    nearest to it on their side, a run of neighbors, be there a gap between or not; positions keep the gap.
    """
    left, right = known.before(made.start), known.after(made.stop)
    spans = schedule.ahead
    shifts = find_shifts(schedule, made, every, left, right, gaps)
    oldest = left.stop - schedule.left.near_frames
    newest = right.start + sum(span.frames for span in spans)
    past = _looks(schedule.left.near[::-1], range(left.stop - 1, oldest - 1, -1), left, shifts.left, missing)
    future = _looks(spans, range(right.start, newest), right, shifts.right, missing)
    tails: tuple[list[Look], list[Look]] = [], []
    if {schedule.left.tail, schedule.right.tail} & {"ta", "tc"}:
        older, later = known.beyond(min(oldest, made.start), max(newest, made.stop))
        tails = (
            _tail(schedule.left, older, oldest - 1, shifts.left, gaps),
            _tail(schedule.right, later, newest, shifts.right, gaps),
        )
    return Section(
        index,
        tuple(made),
        tuple(f + shifts.made for f in made),
        (*_anchors(schedule.left.far, known, made.start), *tails[0], *past[::-1], *future, *tails[1]),
    )


def _anchors(spans: tuple[Span, ...], known: Known, stop: int) -> list[Look]:
    """The first frames of the video, at their own numbers, as far as they are known without a gap."""
    looks, first, run = [], 0, known.after(0)
    stop = min(stop, run.stop if 0 in run else 0)
    for span in spans:
        frames = tuple(range(first, min(stop, first + span.frames)))
        first += span.frames
        if frames:
            looks.append(Look(frames, span.kernel, frames))
    return looks


def _looks(spans: tuple[Span, ...], nearest_first: range, known: range, shift: int, missing: Missing) -> list[Look]:
    """Spans, nearest first, read these frames; those that are not known are left out or read as zeros."""
    looks, taken = [], 0
    for span in spans:
        offered = nearest_first[taken : taken + span.frames]
        frames = tuple(sorted(f for f in offered if missing == "zeros" or f in known))
        taken += span.frames
        if frames:
            looks.append(Look(frames, span.kernel, tuple(f + shift for f in frames)))
    return looks


def _tail(side: Side, frames: tuple[int, ...], nearest: int, shift: int, gaps: Gaps) -> list[Look]:
    """What no span of a side shows, if its tail is kept and there is any."""
    if side.tail not in ("ta", "tc") or not frames:
        return []
    return [Look(frames, side.coarsest, tail_positions(frames, nearest, shift, gaps), side.tail)]
