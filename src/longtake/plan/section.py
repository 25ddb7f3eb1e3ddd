"""Sections and plans: plain numbers, made before anything else happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longtake.schedule import Kernel, Schedule

__all__ = ["Look", "Plan", "Section"]


@dataclass(frozen=True, slots=True)
class Look:
    """Frames of history that a section reads through one kernel, in time order.

    `tail` says that these are frames beyond all spans: "ta" makes a token of every 32 x 32 latent pixels of each of them,
    "tc" one token of all together.
    """

    frames: tuple[int, ...]  # absolute numbers; 0 is the start image
    kernel: Kernel
    positions: tuple[int, ...]  # RoPE time of each frame
    tail: Literal["", "ta", "tc"] = ""

    def tokens(self, height: int, width: int) -> int:
        """Tokens on a latent grid."""
        if self.tail == "tc":
            return 1
        if self.tail == "ta":
            return Kernel(1, 32, 32).tokens(len(self.frames), height, width)
        return self.kernel.tokens(len(self.frames), height, width)


@dataclass(frozen=True, slots=True)
class Section:
    """Frames that are made together, and what they see, in the order of their tokens."""

    index: int  # place in the order of making, from 0
    frames: tuple[int, ...]
    positions: tuple[int, ...]
    sees: tuple[Look, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The sections of one video in the order in which they are made."""

    schedule: Schedule
    order: str
    frames: int  # of the whole video, the start frame included
    sections: tuple[Section, ...]
