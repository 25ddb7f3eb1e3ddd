"""Schedules as data: spans of history to the left (past) and right (future) of the frames that are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kernel", "Schedule", "Side", "Span", "Tail"]

Tail = Literal["td", "ta", "tc"]  # what happens to frames that no span reaches: deleted, appended, compressed


@dataclass(frozen=True, slots=True)
class Kernel:
    """A patchify kernel in latent pixels: frames, rows, columns (paper, section 3.1).

    >>> str(Kernel(2, 4, 4)), str(Kernel(1, 8, 8))
    ('k2', 'k1h8w8')
    """

    t: int
    h: int
    w: int

    def __str__(self) -> str:
        regular = self.h == self.w == 2 * self.t
        return f"k{self.t}" if regular else f"k{self.t}h{self.h}w{self.w}"

    @property
    def volume(self) -> int:
        """Latent pixels that it covers."""
        return self.t * self.h * self.w

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of `frames` latent frames on a latent grid, each side padded to a multiple of the kernel.

        >>> Kernel(4, 8, 8).tokens(16, height=60, width=104)
        416
        """
        return -(-frames // self.t) * -(-height // self.h) * -(-width // self.w)


@dataclass(frozen=True, slots=True)
class Span:
    """Contiguous frames that are read through one kernel."""

    frames: int
    kernel: Kernel

    def __str__(self) -> str:
        return f"f{self.frames}{self.kernel}"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the made frames: spans next to them, spans beyond a gap `x`, and the tail. In time order."""

    near: tuple[Span, ...] = ()
    far: tuple[Span, ...] = ()
    tail: Tail | None = None

    @property
    def near_frames(self) -> int:
        """Frames in the spans next to the made ones."""
        return sum(span.frames for span in self.near)

    @property
    def coarsest(self) -> Kernel:
        """The coarsest kernel of the spans next to the made frames, of which there are some."""
        return max((span.kernel for span in self.near), key=lambda kernel: kernel.volume)

    @property
    def far_frames(self) -> int:
        """Frames in the spans beyond the gap."""
        return sum(span.frames for span in self.far)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one section sees, as a time line; its name is its data.

    >>> from longtake.schedule import parse
    >>> schedule = parse("f1k1_x_g9_f1k1f2k2f16k4_td")
    >>> schedule.generated, schedule.left.far, str(schedule)
    (9, (Span(frames=1, kernel=Kernel(t=1, h=2, w=2)),), 'f1k1_x_g9_f1k1f2k2f16k4_td')
    """

    left: Side
    generated: int
    right: Side
    discrete: bool = False

    def __str__(self) -> str:
        def packing(spans: tuple[Span, ...]) -> str:
            return "".join(map(str, spans))

        left = [self.left.tail or "", packing(self.left.far), "x" if self.left.far else "", packing(self.left.near)]
        right = [
            packing(self.right.near),
            "x" if self.right.far else "",
            packing(self.right.far),
            self.right.tail or "",
        ]
        made = f"g{self.generated}" + ("+D" if self.discrete else "")
        return "_".join(part for part in (*left, made, *right) if part)

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans in time order."""
        return (*self.left.far, *self.left.near, *self.right.near, *self.right.far)

    @property
    def ahead(self) -> tuple[Span, ...]:
        """The spans of the future, in time order: next to the made frames, or beyond a gap if none are."""
        return self.right.near or self.right.far

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The distinct kernels, finest first."""
        return tuple(sorted({s.kernel for s in self.spans}, key=lambda k: (k.volume, k.t, k.h)))

    def context_tokens(self, height: int, width: int) -> int:
        """Tokens of a full history on a latent grid, without its tail and without the made frames."""
        return sum(span.kernel.tokens(span.frames, height, width) for span in self.spans)

    def section_tokens(self, height: int, width: int) -> int:
        """Tokens of the made frames on a latent grid."""
        return Kernel(1, 2, 2).tokens(self.generated, height, width)
