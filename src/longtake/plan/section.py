"""Sections and plans: plain numbers, made before anything else happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longtake.plan.positions import Gaps, place_of
from longtake.schedule import Kernel, Schedule

__all__ = ["Look", "Plan", "Section"]


@dataclass(frozen=True, slots=True)
class Look:
    """Frames of history that a section reads through one kernel, in time order.

    `tail` says that these are the frames beyond all spans. "ta" makes a token of every 32 x 32 latent pixels of each of
    them, "tc" one token of all together; either goes through `kernel`, the coarsest of the spans.
    """

    frames: tuple[int, ...]  # absolute numbers; 0 is the start image, if the video has one
    kernel: Kernel
    positions: tuple[int, ...]  # RoPE time of each frame
    tail: Literal["", "ta", "tc"] = ""

    def pooling(self, height: int, width: int) -> Kernel:
        """What one token stands for, in latent pixels of a grid: the kernel, or more where this is a tail.

        >>> Look((1, 2, 3), Kernel(4, 8, 8), (1, 2, 3), tail="tc").pooling(60, 104)
        Kernel(t=3, h=60, w=104)
        """
        return {"": self.kernel, "ta": Kernel(1, 32, 32), "tc": Kernel(len(self.frames), height, width)}[self.tail]

    def tokens(self, height: int, width: int) -> int:
        """Tokens on a latent grid."""
        return self.pooling(height, width).tokens(len(self.frames), height, width)


@dataclass(frozen=True, slots=True)
class Section:
    """Frames that are made together, and what they see, in the order of their tokens."""

    index: int  # place in the order of making, from 0
    frames: tuple[int, ...]
    positions: tuple[int, ...]
    sees: tuple[Look, ...]

    @property
    def seen(self) -> frozenset[int]:
        """The frames that it looks at."""
        return frozenset(frame for look in self.sees for frame in look.frames)

    def context_tokens(self, height: int, width: int) -> int:
        """Tokens of everything that the section sees, on a latent grid."""
        return sum(look.tokens(height, width) for look in self.sees)


@dataclass(frozen=True, slots=True)
class Plan:
    """The sections of one video in the order in which they are made."""

    schedule: Schedule
    order: str
    frames: int  # up to the end of what is made, the start frame included
    sections: tuple[Section, ...]
    given: tuple[int, ...] = ()  # frames that are known before the first section, beside those around what is made
    gaps: Gaps = "clamped"
    first: int = 1  # that is made; all frames before it are known: the start frame, or a whole video
    beyond: int = 0  # so many frames are known that follow the last one made

    @property
    def known(self) -> tuple[range, ...]:
        """The frames that are known before the first section is made, as ranges that may touch."""
        given = (range(frame, frame + 1) for frame in self.given)
        around = range(self.first), range(self.frames, self.frames + self.beyond)
        return tuple(frames for frames in (*around, *given) if frames)

    def place_of(self, section: Section) -> int:
        """The place of a section in time, from 0."""
        return place_of(section.frames[0], self.first, self.schedule.generated)

    def by_place(self) -> dict[int, Section]:
        """The sections by their place in time."""
        return {self.place_of(section): section for section in self.sections}
