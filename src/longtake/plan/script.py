"""Scripts: a storyboard on the sections of a video, by place in time.

The section at place k lasts from k to k + 1 times its length: 36 images for 9 frames of 4 images. At the end of it the
video reaches image 36 (k + 1), the start image being image 0. That is where a key image can be: given as the frame
after the section (1 + 9 (k + 1)), it is what the section before it leads to.

    seconds    0         3         6         9          36 images a section at 12 images/s
    place      |----0----|----1----|----2----|
    frames     0  1...9    10...18   19...27   28
               start      key?      key?      key?, or the end
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

from longtake.errors import StoryboardError
from longtake.plan.anchor import Manner, images_of
from longtake.plan.section import Plan, Section
from longtake.plan.storyboard import Cue, Storyboard

__all__ = ["KeyImage", "Script", "Snap", "Told", "check_reached", "compile_storyboard", "sections_that_see"]

DIGITS = 9  # of a time in sections: what follows them is the round-off of a division


@dataclass(frozen=True, slots=True)
class Told:
    """What a section is told; None is what the whole video is told."""

    prompt: str
    seed: int | None = None
    guidance: float | None = None


@dataclass(frozen=True, slots=True)
class KeyImage:
    """An image that the video reaches, and when; as a given frame it follows the section that leads to it."""

    frame: int
    seconds: float
    image: Path


@dataclass(frozen=True, slots=True)
class Snap:
    """A time of a cue that moved to where a section begins or ends."""

    cue: Cue
    asked: float  # seconds
    got: float


@dataclass(frozen=True, slots=True)
class Script:
    """What each section is told, in time order, what is given beside the start image, and what snapped where."""

    seconds: float  # of a section
    told: tuple[Told, ...]
    keys: tuple[KeyImage, ...]
    snaps: tuple[Snap, ...]


@dataclass(frozen=True, slots=True)
class _Ruler:
    """The sections of a video as a scale of time."""

    sections: int
    seconds: float  # of a section

    def place(self, time: float) -> float:
        """A time in sections."""
        return round(time / self.seconds, DIGITS)

    def check(self, cue: Cue, needed: int) -> None:
        """Refuses a cue that needs more sections than there are."""
        if needed > self.sections:
            end, enough = self.sections * self.seconds, needed * self.seconds
            raise StoryboardError(f"{cue}: the video ends at {end:g} s; one of {enough:g} s would do")

    def end(self, cue: Cue) -> int:
        """After how many sections the image of a cue is reached."""
        place = floor(self.place(cue.at) + 0.5)
        self.check(cue, place)
        if place == 0:
            ends = f"{self.seconds:g}s"
            raise StoryboardError(f"{cue}: the first section ends at {ends}, which would do; 0s is the start image")
        return place


def compile_storyboard(
    board: Storyboard, sections: int, generated: int, temporal_ratio: int, fps: float, manner: Manner = "stream"
) -> Script:
    r"""The script of a video of so many sections of `generated` frames, each frame `temporal_ratio` images.

    A prompt, a seed or guidance holds until the next one begins, or to its own end, and a section takes the one that
    covers most of it, the later of two that cover the same. An image goes to the nearest end of a section. As the
    length of a video is rounded to whole sections, an image or an end may lie half a section behind it.

    >>> from longtake.plan import read_storyboard
    >>> board = read_storyboard("0s: the camera orbits left\n4s: the ball rolls\n8s image=end.png")
    >>> script = compile_storyboard(board, sections=3, generated=9, temporal_ratio=4, fps=12.0)
    >>> [told.prompt for told in script.told], [key.frame for key in script.keys]
    (['the camera orbits left', 'the ball rolls', 'the ball rolls'], [28])
    >>> [(snap.asked, snap.got) for snap in script.snaps]
    [(4.0, 3.0), (8.0, 9.0)]

    Raises:
        StoryboardError: cues overlap, lie behind the end or reach no section, or two images have one place.
    """
    board = board.settled()
    ruler = _Ruler(sections, images_of(generated, temporal_ratio, manner) / fps)
    cues = sorted(board.cues, key=lambda cue: cue.at)
    prompts = _heard([cue for cue in cues if cue.prompt is not None], ruler)
    seeds = _heard([cue for cue in cues if cue.seed is not None], ruler)
    guidances = _heard([cue for cue in cues if cue.guidance is not None], ruler)
    told = tuple(
        Told((p and p.prompt) or board.prompt, s and s.seed, g and g.guidance)
        for p, s, g in zip(prompts, seeds, guidances, strict=True)
    )
    keys = tuple(KeyImage(1 + generated * n, ruler.seconds * n, image) for n, image in _images(board, cues, ruler))
    snaps = [Snap(cue, cue.at, ruler.seconds * ruler.end(cue)) for cue in cues if cue.image]
    snaps += [snap for heard in (prompts, seeds, guidances) for snap in _snaps(heard, ruler)]
    moved = (snap for snap in dict.fromkeys(snaps) if ruler.place(snap.asked) != ruler.place(snap.got))
    return Script(ruler.seconds, told, keys, tuple(sorted(moved, key=lambda snap: snap.asked)))


def _images(board: Storyboard, cues: Sequence[Cue], ruler: _Ruler) -> list[tuple[int, Path]]:
    """The key images in time order, with the number of sections that lead to each."""
    images = [(ruler.end(cue), cue.image, str(cue)) for cue in cues if cue.image]
    if board.loop:
        if board.image is None:
            raise StoryboardError("[loop]: the video would end at its start image, and there is none")
        images.append((ruler.sections, board.image, "[loop]"))
    for (n, _, one), (other_n, _, other) in pairwise(images):
        if n == other_n:
            each = f"images can be {ruler.seconds:g} s apart"
            raise StoryboardError(f"{one} and {other} are both at {ruler.seconds * n:g} s; {each}")
    return [(n, image) for n, image, _ in images]


def _heard(cues: Sequence[Cue], ruler: _Ruler) -> list[Cue | None]:
    """What each section hears of some cues in time order that are not to overlap; None is none of them."""
    pieces = _pieces(cues, ruler)
    covered: list[dict[Cue | None, float]] = [{} for _ in range(ruler.sections)]
    for piece in pieces:
        for place in range(floor(piece.begin), ceil(piece.end)):
            part, parts = min(piece.end, place + 1) - max(piece.begin, place), covered[place]
            if part > 0:
                parts[piece.cue] = parts.pop(piece.cue, 0.0) + part  # what is heard last stands last
    heard = [max(reversed(parts), key=lambda cue, parts=parts: round(parts[cue], DIGITS)) for parts in covered]
    for piece in pieces:
        if piece.cue and piece.cue not in heard:
            place = floor((piece.begin + piece.end) / 2)
            whole = "-".join(f"{ruler.seconds * n:g}s" for n in (place, place + 1))
            raise StoryboardError(
                f"{piece.cue} reaches no section: each is {ruler.seconds:g} s long and hears what covers most of it; "
                f"{whole} would do"
            )
    return heard


@dataclass(frozen=True, slots=True)
class _Piece:
    """A time, in sections, and the cue that holds then; None where none does."""

    cue: Cue | None
    begin: float
    end: float


def _pieces(cues: Sequence[Cue], ruler: _Ruler) -> list[_Piece]:
    """The whole length of the video in pieces, in time order; some can be empty."""
    pieces, at = list[_Piece](), 0.0
    for cue, following in zip(cues, (*cues[1:], None), strict=False):
        begin, end = ruler.place(cue.at), float(ruler.sections)
        if begin >= ruler.sections:
            ruler.check(cue, floor(begin + 0.5) + 1)  # as many as it takes to be heard
        if following:
            if following.at == cue.at or (cue.until is not None and cue.until > following.at):
                raise StoryboardError(f"{cue} and {following} overlap; let one end before the other begins")
            end = ruler.place(following.at)
        if cue.until is not None:
            until = ruler.place(cue.until)
            ruler.check(cue, floor(until + 0.5))
            end = min(until, ruler.sections)
        pieces += [_Piece(None, at, begin), _Piece(cue, begin, end)]
        at = end
    return [*pieces, _Piece(None, at, ruler.sections)]


def _snaps(heard: Sequence[Cue | None], ruler: _Ruler) -> Iterator[Snap]:
    """Where the times of cues went; where they did not move, too."""
    first, last = dict[Cue, int](), dict[Cue, int]()
    for place, cue in enumerate(heard):
        if cue:
            first.setdefault(cue, place)
            last[cue] = place
    for cue, place in first.items():
        yield Snap(cue, cue.at, ruler.seconds * place)
        if cue.until is not None:
            yield Snap(cue, cue.until, ruler.seconds * (last[cue] + 1))


def sections_that_see(plan: Plan, frame: int) -> tuple[Section, ...]:
    """The sections of a plan that see a frame as it is given, in the order of making."""
    made = next((section.index for section in plan.sections if frame in section.frames), len(plan.sections))
    return tuple(section for section in plan.sections[:made] if any(frame in look.frames for look in section.sees))


def check_reached(script: Script, plan: Plan) -> None:
    """Checks that the section before each key image sees it.

    Raises:
        StoryboardError: the order makes the section after it first, and the image is gone.
    """
    for key in script.keys:
        if not any(section.frames[-1] == key.frame - 1 for section in sections_that_see(plan, key.frame)):
            raise StoryboardError(
                f"{key.image} at {key.seconds:g} s: in the order {plan.order} the section that leads there is made "
                "after the next one, and would lead to that; the order vanilla would do"
            )
