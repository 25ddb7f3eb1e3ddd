"""Storyboards: what is to happen over time, as it is asked for. Times are seconds from the start image.

In a prompt      a ball on a floor [0s: the camera orbits left] [6s-9s seed=4: the ball rolls] [9s image=end.png] [loop]
In a text file   an entry without brackets on a line, or entries as in a prompt; lines that begin with # say nothing
As JSON          {"prompt": "a ball", "loop": true, "cues": [{"at": 6, "until": 9, "seed": 4, "prompt": "it rolls"}]}

entry := time ["-" time] (name "=" value)* [":" words]        or "loop"
time  := number "s"
name  := "seed" | "guidance" | "image"                        a value with spaces stands in quotes

What is outside of all entries is the main prompt: it holds where no other one does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ConfigDict, TypeAdapter, ValidationError

from longtake.errors import StoryboardError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["SEEDS", "STRONGEST", "Cue", "Storyboard", "as_storyboard", "read_prompt", "read_storyboard"]

SEEDS = 2**63  # a seed is below
STRONGEST = 100.0  # guidance
SHOWN = 50  # characters on each side of a place that cannot be read

ENTRY = r"[-+]?\.?\d"  # what begins with a number is a time
TIMED = re.compile(rf"\[\s*(?:{ENTRY}|loop\s*\])")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
NAME = re.compile(r"([a-z]+)\s*=\s*")
BARE = re.compile(r"[^\s:\[\]\"]+")
VALUE = re.compile(rf'"([^"]*)"|({BARE.pattern})')
COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
EXPECTED = "expected seed=, guidance= or image="


@dataclass(frozen=True, slots=True)
class _Option:
    """What stands behind a name and = in an entry."""

    pattern: re.Pattern[str]
    read: Callable[[str], int | float | Path]
    expected: str


OPTIONS = {
    "seed": _Option(re.compile(r"\d{1,19}"), int, "a whole number below 2^63"),
    "guidance": _Option(NUMBER, float, "a number"),
    "image": _Option(re.compile(r".*\S.*"), Path, "a file"),
}


@dataclass(frozen=True, slots=True)
class Cue:
    """What is told from a time on: words, a seed, guidance, each until the next cue that says another; or an image.

    The video reaches the image at that time; at 0 s it starts from it. A cue is written as in a prompt:

    >>> str(Cue(6.0, until=9.0, seed=4, prompt="the ball rolls"))
    '[6s-9s seed=4: the ball rolls]'

    Raises:
        StoryboardError: it says nothing, or something that cannot be.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    at: float
    until: float | None = None
    prompt: str | None = None
    seed: int | None = None
    guidance: float | None = None
    image: Path | None = None

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise StoryboardError(f"{self}: {fault}")

    def __str__(self) -> str:
        until = "" if self.until is None else f"-{_plain(self.until)}s"
        values = {
            "seed": self.seed,
            "guidance": None if self.guidance is None else _plain(self.guidance),
            "image": None if self.image is None else _quoted(str(self.image)),
        }
        options = "".join(f" {name}={value}" for name, value in values.items() if value is not None)
        words = "" if self.prompt is None else f": {self.prompt}"
        return f"[{_plain(self.at)}s{until}{options}{words}]"

    @property
    def holds(self) -> bool:
        """True if it says something that holds for a while."""
        return (self.prompt, self.seed, self.guidance) != (None, None, None)

    def _fault(self) -> str:
        at, until = self.at, self.until
        if not 0 <= at < inf:
            return "a time is 0 s or later"
        if until is not None and not at < until < inf:
            return "it ends before it begins" + (
                f"; {_plain(until)}s-{_plain(at)}s would do" if 0 <= until < at else ""
            )
        if not (self.holds or self.image):
            return "it says nothing; expected a prompt, a seed, guidance or an image"
        if self.image is not None and not str(self.image).strip():
            return "the image has no name"
        if until is not None and not self.holds:
            return f"an image stands at one time; {_plain(at)}s would do"
        if self.prompt is not None and not self.prompt.strip():
            return "there are no words after the colon"
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            return f"a seed is a whole number from 0 to {SEEDS - 1}"
        if self.guidance is not None and not 1.0 <= self.guidance <= STRONGEST:
            return f"guidance is a number from 1 to {STRONGEST:g}"
        return ""


@dataclass(frozen=True, slots=True)
class Storyboard:
    """Cues, in any order, and what holds for the whole video: the main prompt, the start image, and whether it loops.

    A video that loops ends where it starts.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    cues: tuple[Cue, ...] = ()
    loop: bool = False
    prompt: str = ""
    image: Path | None = None

    @property
    def timed(self) -> bool:
        """True if it says more than a prompt and a start image."""
        return bool(self.cues) or self.loop

    def settled(self) -> Storyboard:
        """The same with the image of 0 s as the start image.

        >>> board = Storyboard((Cue(0.0, image=Path("a.png"), seed=3),)).settled()
        >>> str(board.cues[0]), str(board.image)
        ('[0s seed=3]', 'a.png')

        Raises:
            StoryboardError: there are two of them.
        """
        images = dict.fromkeys(i for i in (self.image, *(c.image for c in self.cues if c.at == 0)) if i)
        if len(images) > 1:
            raise StoryboardError(f"a video starts from one image, not from {' and '.join(map(str, images))}")
        cues = (c if c.at or not c.image else replace(c, image=None) for c in self.cues if c.at or c.holds)
        return replace(self, cues=tuple(cues), image=next(iter(images), None))

    def joined(self, prompt: str, image: Path | None) -> Storyboard:
        """The same with a prompt and a start image that stand beside it, settled; the prompt may have entries in it.

        >>> str(Storyboard().joined("a ball [3s: it rolls]", None).cues[0])
        '[3s: it rolls]'

        Raises:
            StoryboardError: something is said twice, or an entry of the prompt cannot be read.
        """
        spoken = read_prompt(prompt)
        if spoken.timed and self.timed:
            raise StoryboardError("the prompt says what happens when, and so does the storyboard; one of them would do")
        if spoken.prompt and self.prompt and spoken.prompt != self.prompt:
            raise StoryboardError(f"there is one main prompt, not {spoken.prompt!r} and {self.prompt!r}")
        start = [Cue(0.0, image=image)] if image else []
        cues, loop = (*self.cues, *spoken.cues, *start), self.loop or spoken.loop
        return replace(self, cues=cues, loop=loop, prompt=spoken.prompt or self.prompt).settled()


BOARD = TypeAdapter(Storyboard)


def read_storyboard(text: str, folder: Path = Path()) -> Storyboard:
    r"""Reads a storyboard from a text file or from JSON; images are files of `folder`.

    >>> board = read_storyboard("a ball on a floor\n0s: the camera orbits left\n6s-9s seed=4: the ball rolls")
    >>> board.prompt, [cue.prompt for cue in board.cues]
    ('a ball on a floor', ['the camera orbits left', 'the ball rolls'])
    >>> read_storyboard("0s: the ball rolls\n3.5-8s: it stops")
    Traceback (most recent call last):
    longtake.errors.StoryboardError: line 2
    3.5-8s: it stops
       ^ expected s, for seconds, as what begins with a number is a time

    Raises:
        StoryboardError: it cannot be read, with a caret under the place; or it says nothing, or what cannot be.
    """
    if text.lstrip().startswith("{"):
        return _within(_read_json(text), folder)
    rest, cues, loop = COMMENT.sub(lambda comment: " " * len(comment[0]), text), list[Cue](), False
    for line in re.finditer(r"[^\n]*\S[^\n]*", rest):
        words = line[0].strip()
        entry = re.match(ENTRY, words) is not None
        if entry:
            cues.append(_Reader(rest, line.end(), line.start()).cue())
        loop |= words == "loop"
        if entry or words == "loop":
            rest = rest[: line.start()] + " " * len(line[0]) + rest[line.end() :]
    inline = read_prompt(rest)
    board = Storyboard((*cues, *inline.cues), loop or inline.loop, _cleaned(inline.prompt))
    if board == Storyboard():
        raise StoryboardError("the storyboard is empty; a line such as 3s: the ball rolls would do")
    return _within(board, folder)


def read_prompt(text: str) -> Storyboard:
    """Reads a prompt that may have entries in it; without any the text is the main prompt, as it stands.

    >>> read_prompt("a ball on a floor [loop]")
    Storyboard(cues=(), loop=True, prompt='a ball on a floor', image=None)

    Raises:
        StoryboardError: an entry cannot be read, with a caret under the place; or it says nothing, or what cannot be.
    """
    cues, outside, loop, at = list[Cue](), list[str](), False, 0
    while found := TIMED.search(text, at):
        outside.append(text[at : found.start()])
        at = _closing(text, found.start())
        if found[0].endswith("]"):
            loop = True
        else:
            cues.append(_Reader(text, at - 1, found.start() + 1).cue())
    if not at:
        return Storyboard(prompt=text)
    return Storyboard(tuple(cues), loop, _cleaned(" ".join([*outside, text[at:]])))


def as_storyboard(data: Any) -> Storyboard:
    """A storyboard from plain data, as JSON has it; one that is there already stays.

    Raises:
        StoryboardError: keys or values are wrong; each is named.
    """
    try:
        return BOARD.validate_python(data)
    except ValidationError as error:
        lines = [f"  {_explained(e)}" for e in error.errors()]
        raise StoryboardError("\n".join(["the storyboard cannot be used:", *lines])) from error


@dataclass(slots=True)
class _Reader:
    """A text, the end of the entry that is read, and the place up to which it has been."""

    text: str
    end: int
    at: int

    def fail(self, expected: str) -> NoReturn:
        _fail(self.text, self.at, expected)

    def space(self) -> None:
        while self.at < self.end and self.text[self.at].isspace():
            self.at += 1

    def take(self, word: str) -> bool:
        self.space()
        found = self.text.startswith(word, self.at, self.end)
        self.at += len(word) * found
        return found

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.space()
        found = pattern.match(self.text, self.at, self.end)
        self.at = found.end() if found else self.at
        return found

    def time(self) -> float:
        number = self.match(NUMBER)
        if number is None:
            self.fail("expected a time, such as 3.5s")
        if not self.text.startswith("s", self.at, self.end):
            self.fail("expected s, for seconds, as what begins with a number is a time")
        self.at += 1
        return float(number[0])

    def value(self, option: _Option) -> int | float | Path:
        self.space()
        begin = self.at
        found = self.match(VALUE)
        value = found[found.lastindex or 0] if found else ""
        if not option.pattern.fullmatch(value):
            self.at = begin
            self.fail(f"expected {option.expected}")
        return option.read(value)

    def cue(self) -> Cue:
        at = self.time()
        until = self.time() if self.take("-") else None
        values: dict[str, Any] = {}
        while found := self.match(NAME):
            name = found[1]
            if name not in OPTIONS or name in values:
                self.at = found.start()
                self.fail(f"{name} is said already" if name in values else EXPECTED)
            values[name] = self.value(OPTIONS[name])
        if self.take(":"):
            if nested := TIMED.search(self.text, self.at, self.end):
                self.at = nested.start()
                self.fail("this is within the words of another entry; is a ] missing before it?")
            values["prompt"] = _cleaned(self.text[self.at : self.end])
        elif self.at < self.end:
            self.fail("expected : and words, seed=, guidance= or image=")
        return Cue(at, until, **values)


def _closing(text: str, opening: int) -> int:
    """The place behind the bracket that closes another."""
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == "[") - (text[at] == "]")
        if not depth:
            return at + 1
    _fail(text, opening, "there is no ] that closes this")


def _read_json(text: str) -> Storyboard:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        _fail(text, error.pos, f"no JSON: {error.msg[:1].lower()}{error.msg[1:]}")
    return as_storyboard(data)


def _fail(text: str, at: int, expected: str) -> NoReturn:
    begin = text.rfind("\n", 0, at) + 1
    line = text[begin:].partition("\n")[0]
    first = max(0, at - begin - SHOWN)
    shown = "".join(c if c.isprintable() else "?" for c in line[first : at - begin + SHOWN])  # a tab moves the caret
    number = text.count("\n", 0, at) + 1
    where = f"line {number}\n" if "\n" in text else ""
    raise StoryboardError(f"{where}{shown}\n{' ' * (at - begin - first)}^ {expected}")


def _explained(error: ErrorDetails) -> str:
    """What is wrong with a key or a value of plain data."""
    path = error["loc"]
    where = ".".join(["storyboard", *map(str, path)])
    if error["type"] == "unexpected_keyword_argument":
        keys = ", ".join(field.name for field in fields(Cue if "cues" in path else Storyboard))
        return f"{where}: there is no such key; there are {keys}"
    return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _within(board: Storyboard, folder: Path) -> Storyboard:
    """The storyboard with its images in a folder."""
    cues = tuple(replace(cue, image=folder / cue.image) if cue.image else cue for cue in board.cues)
    return replace(board, cues=cues, image=folder / board.image if board.image else None)


def _cleaned(text: str) -> str:
    return " ".join(text.split())


def _plain(number: float) -> str:
    """A number without an exponent and without a needless point.

    >>> _plain(3.0), _plain(3.25), _plain(1e-7)
    ('3', '3.25', '0.0000001')
    """
    return format(Decimal(repr(float(number))), "f").removesuffix(".0")


def _quoted(name: str) -> str:
    return name if BARE.fullmatch(name) else f'"{name}"'
