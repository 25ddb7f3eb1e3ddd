"""Schedule names to schedules (paper, section 4.1).

name    := part ("_" part)*         left of g is the past, right of it the future
part    := tail | packing | "x" | made
packing := ("f" N "k" t ["h" h "w" w])+      contiguous frames in time order
made    := "g" N ["+D" | "+d"]               the frames of a section; history is discretized
tail    := "td" | "ta" | "tc"                outermost; deleted, appended, compressed
x       := any number of frames is skipped between it and the spans beyond
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn, cast

from longtake.errors import ScheduleError
from longtake.schedule.timeline import Kernel, Schedule, Side, Span, Tail

__all__ = ["parse"]

SPAN = re.compile(r"f(\d+)k(\d+)(?:h(\d+)w(\d+))?")
MADE = re.compile(r"g(\d+)(\+[Dd])?")
PART = "f<n>k<n>, g<n>, x, td, ta or tc"


@dataclass(slots=True)
class _Part:
    """A part of a name and where it begins."""

    text: str
    at: int
    spans: tuple[Span, ...] = ()


@dataclass(slots=True)
class _Parser:
    name: str
    parts: list[_Part] = field(default_factory=list)

    def fail(self, at: int, expected: str) -> NoReturn:
        raise ScheduleError(f"{self.name}\n{' ' * at}^ {expected}")

    def split(self) -> None:
        at = 0
        for text in self.name.split("_"):
            self.parts.append(_Part(text, at))
            at += len(text) + 1

    def number(self, match: re.Match[str], group: int, at: int) -> int:
        value = int(match[group])
        if value == 0:
            self.fail(at + match.start(group), "expected a number of at least 1")
        return value

    def packing(self, part: _Part) -> tuple[Span, ...]:
        spans, offset = [], 0
        while offset < len(part.text):
            match = SPAN.match(part.text, offset)
            if match is None:
                self.fail(part.at + offset, f"expected {'f<n>k<n>' if offset else PART}")
            frames, t = self.number(match, 1, part.at), self.number(match, 2, part.at)
            h, w = (self.number(match, g, part.at) if match[g] else 2 * t for g in (3, 4))
            spans.append(Span(frames, Kernel(t, h, w)))
            offset = match.end()
        return tuple(spans)

    def side(self, parts: list[_Part]) -> Side:
        """A side, its parts given from the outside to the made frames."""
        tail: Tail | None = None
        if parts and parts[0].text in ("td", "ta", "tc"):
            tail = cast(Tail, parts.pop(0).text)
        groups: list[_Part | None] = []
        for part in parts:
            if part.text in ("td", "ta", "tc"):
                self.fail(part.at, "a tail stands at the outer end of its side")
            if part.text == "x":
                if not groups or groups[-1] is None:
                    self.fail(
                        part.at,
                        "x skips frames between spans beyond it and the frames made: expected f<n>k<n> beyond it",
                    )
                groups.append(None)
            else:
                if groups and groups[-1] is not None:
                    self.fail(part.at, "two packings side by side: join them into one, or put x between them")
                part.spans = self.packing(part)
                groups.append(part)
        if groups.count(None) > 1:
            self.fail(parts[-1].at, "only one gap x is allowed on a side")
        if None in groups:
            far, near = groups[0], groups[2] if len(groups) > 2 else None
        else:
            far, near = None, groups[0] if groups else None
        if tail is not None and near is None:
            self.fail(
                self.name.index(tail),
                "a tail is what a side's spans next to the frames made do not reach: there are none",
            )
        return Side(near.spans if near else (), far.spans if far else (), tail)


def parse(name: str) -> Schedule:
    """Reads a schedule name (paper, section 4.1). `str` is its inverse.

    >>> parse("td_f16k4f2k2f1k1_g9").context_tokens(height=60, width=104)
    2366
    >>> parse("f16k4_q2_g9")
    Traceback (most recent call last):
    longtake.errors.ScheduleError: f16k4_q2_g9
          ^ expected f<n>k<n>, g<n>, x, td, ta or tc

    Raises:
        ScheduleError: with a caret under the place that cannot be read.
    """
    parser = _Parser(name)
    parser.split()
    made = [i for i, part in enumerate(parser.parts) if part.text.startswith("g")]
    if not made:
        for part in parser.parts:
            if part.text not in ("x", "td", "ta", "tc"):
                parser.packing(part)
        parser.fail(len(name), "expected g<n>, the frames that a section makes")
    middle = parser.parts[made[0]]
    match = MADE.match(middle.text)
    if match is None:
        parser.fail(middle.at + 1, "expected a number of frames")
    if match.end() < len(middle.text):
        parser.fail(middle.at + match.end(), "expected +D, _ or the end")
    if len(made) > 1:
        parser.fail(parser.parts[made[1]].at, "a schedule makes frames in one place: there is a g already")
    generated = parser.number(match, 1, middle.at)
    for part in parser.parts:
        if not part.text:
            parser.fail(part.at, f"expected {PART}")
    left = parser.side(parser.parts[: made[0]])
    right = parser.side(parser.parts[made[0] + 1 :][::-1])
    return Schedule(left, generated, right, discrete=match[2] is not None)
