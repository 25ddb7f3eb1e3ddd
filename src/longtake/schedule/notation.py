"""Schedule names to schedules (paper, section 4.1).

name    := [side "_"] made ["_" side]           left of g is the past, right of it the future
side    := [tail "_"] [packing "_x_"] packing   seen from its outer end; each part may be missing
packing := ("f" N kernel)+                      contiguous frames in time order
kernel  := "k" n | "k" t "h" h "w" w            (n, 2n, 2n) or any other, in latent pixels
made    := "g" N ["+D" | "+d"]                  the frames of a section; with discretized history
tail    := "td" | "ta" | "tc"                   what no span reaches is deleted, appended, compressed
x       := any number of frames is skipped, none included
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NoReturn

from longtake.errors import ScheduleError
from longtake.schedule.timeline import Kernel, Schedule, Side, Span, Tail

__all__ = ["parse"]

MOST = 999_999
NUMBER = re.compile(r"[1-9][0-9]{0,5}(?![0-9])")
PART = "expected f<n>k<n>, g<n>, x, td, ta or tc"


@dataclass(frozen=True, slots=True)
class _Made:
    frames: int
    discrete: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """What stands between two underscores, and where it begins in the name."""

    at: int
    what: Tail | Literal["x"] | _Made | tuple[Span, ...]


@dataclass(slots=True)
class _Reader:
    """A name and the place up to which it has been read."""

    name: str
    at: int = 0

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        shown = "".join(c if c.isprintable() else "?" for c in self.name)  # a line break would move the caret
        raise ScheduleError(f"{shown}\n{' ' * (self.at if at is None else at)}^ {expected}")

    def take(self, word: str) -> bool:
        found = self.name.startswith(word, self.at)
        self.at += len(word) * found
        return found

    def expect(self, word: str, expected: str) -> None:
        if not self.take(word):
            self.fail(expected)

    def number(self) -> int:
        match = NUMBER.match(self.name, self.at)
        if match is None:
            self.fail(f"expected a number from 1 to {MOST}")
        self.at = match.end()
        return int(match[0])

    def kernel(self) -> Kernel:
        self.expect("k", "expected k<n>")
        t = self.number()
        if not self.take("h"):
            return Kernel(t, 2 * t, 2 * t)
        h = self.number()
        self.expect("w", "expected w<n>")
        return Kernel(t, h, self.number())

    def part(self) -> _Part:
        at, end = self.at, "_ or the end"
        what: Tail | Literal["x"] | _Made | tuple[Span, ...]
        if self.take("td"):
            what = "td"
        elif self.take("ta"):
            what = "ta"
        elif self.take("tc"):
            what = "tc"
        elif self.take("x"):
            what = "x"
        elif self.take("g"):
            frames = self.number()
            discrete = self.take("+D") or self.take("+d")
            what, end = _Made(frames, discrete), end if discrete else "+D, _ or the end"
        elif self.name.startswith("f", self.at):
            spans = []
            while self.take("f"):
                spans.append(Span(self.number(), self.kernel()))
            what, end = tuple(spans), "f<n>k<n>, _ or the end"
        else:
            self.fail(PART)
        if self.at < len(self.name) and self.name[self.at] != "_":
            self.fail(f"expected {end}")
        return _Part(at, what)

    def parts(self) -> list[_Part]:
        parts = [self.part()]
        while self.take("_"):
            parts.append(self.part())
        return parts

    def side(self, parts: list[_Part]) -> Side:
        """A side, its parts given from its outer end to the frames made."""
        tail: Tail | None = None
        far: tuple[Span, ...] = ()
        near: tuple[Span, ...] = ()
        rest = parts
        match rest:
            case [_Part(what="td" | "ta" | "tc" as tail), *_]:
                rest = rest[1:]
        match rest:
            case [_Part(what=tuple() as far), _Part(what="x"), *_]:
                rest = rest[2:]
        match rest:
            case [_Part(what=tuple() as near), *_]:
                rest = rest[1:]
        match rest:
            case [_Part(what="x") as x, *_]:
                hint = "this side has an x already" if far else "expected f<n>k<n> on the outer side of x"
                self.fail(hint, x.at)
            case [_Part(what="td" | "ta" | "tc") as misplaced, *_]:
                self.fail("a tail stands at the outer end of its side", misplaced.at)
            case [_Part() as packing, *_]:
                beside = parts[parts.index(packing) - 1]
                self.fail("expected x between two packings, or no _", max(packing.at, beside.at))
        if tail and not near:
            self.fail("a tail is what the spans next to g do not reach: there are none", parts[0].at)
        return Side(near, far, tail)


@lru_cache(maxsize=1024)  # a training asks for the same few at every step
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
    reader = _Reader(name)
    parts = reader.parts()
    made = [(i, part.what) for i, part in enumerate(parts) if isinstance(part.what, _Made)]
    if not made:
        reader.fail("expected _g<n>, the frames that a section makes")
    if len(made) > 1:
        reader.fail("a section makes frames in one place: there is a g already", parts[made[1][0]].at)
    ((i, middle),) = made
    left, right = reader.side(parts[:i]), reader.side(parts[i + 1 :][::-1])
    return Schedule(left, middle.frames, right, middle.discrete)
