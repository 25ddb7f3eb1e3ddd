"""Schedules and plans as text: who sees what, at which cost, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from longtake.plan.section import Plan, Section
from longtake.plan.sight import Known
from longtake.schedule import Kernel, Schedule, Side, Span, Tail

__all__ = [
    "Format",
    "Stage",
    "axis",
    "draw_plan",
    "draw_schedule",
    "ends",
    "legend",
    "marks_of",
    "round_step",
    "strip",
    "walk",
]

ROWS = 60  # sections that are drawn before some are left out
BAR = 40  # columns of the longest bar
TAILS: dict[Tail, str] = {
    "td": "frames beyond are deleted",
    "ta": "frames beyond: one token for each 32 x 32 latent pixels",
    "tc": "frames beyond: one token for all",
}


@dataclass(frozen=True, slots=True)
class Format:
    """The video that a plan is drawn for, and how many pixels and images its codec makes one of."""

    height: int = 480
    width: int = 832
    fps: float = 30.0
    spatial_ratio: int = 8
    temporal_ratio: int = 4

    @property
    def grid(self) -> tuple[int, int]:
        """Latent height and width."""
        return self.height // self.spatial_ratio, self.width // self.spatial_ratio

    def images(self, frames: int) -> int:
        """Images of a video of so many latent frames, the start frame being one."""
        return 1 + self.temporal_ratio * (frames - 1)

    def seconds(self, frames: int) -> float:
        """The length of a video of so many latent frames.

        >>> round(Format().seconds(37), 2)
        4.83
        """
        return self.images(frames) / self.fps


@dataclass(frozen=True, slots=True)
class Stage:
    """A section, and the frames that are known when its turn comes."""

    section: Section
    known: tuple[range, ...]  # in time order

    @classmethod
    def of(cls, plan: Plan, index: int) -> Stage:
        """The section that is made as number `index`, from 0."""
        known = Known(plan.known)
        for section in plan.sections[:index]:
            known.add(range(section.frames[0], section.frames[-1] + 1))
        return cls(plan.sections[index], known.runs)


def draw_schedule(schedule: Schedule, format: Format) -> str:
    """What a full section sees and costs, a line for each span in time order.

    >>> from longtake.schedule import parse
    >>> print(draw_schedule(parse("td_f2k2f1k1_g4"), Format()))
    td_f2k2f1k1_g4
    what a section sees, at 480 x 832
      td        frames beyond are deleted
      f2k2        2 frames  through   2 x  4 x  4      390  ##
      f1k1        1 frame   through   1 x  2 x  2     1560  ##########
      g4          4 frames  made                      6240  ########################################
    context 1950 of 8190 tokens; unpacked it would be 4680 of 10920
    """
    grid = format.grid
    made, context = schedule.section_tokens(*grid), schedule.context_tokens(*grid)
    most = max([made, *(span.kernel.tokens(span.frames, *grid) for span in schedule.spans)])

    def line(what: str, frames: int, how: str, tokens: int) -> str:
        count = f"{frames:>4} {'frame ' if frames == 1 else 'frames'}"
        return f"  {what:<9}{count}  {how:<22}{tokens:>8}  {'#' * max(1, round(BAR * tokens / most))}"

    def spans(spans: tuple[Span, ...]) -> list[str]:
        return [line(str(s), s.frames, _through(s.kernel), s.kernel.tokens(s.frames, *grid)) for s in spans]

    def outer(side: Side) -> list[str]:
        return [f"  {side.tail:<9} {TAILS[side.tail]}"] if side.tail else []

    def skipped(side: Side) -> list[str]:
        return [f"  {'x':<9} any number of frames is skipped"] if side.far else []

    left, right = schedule.left, schedule.right
    generated = f"g{schedule.generated}" + "+D" * schedule.discrete
    unpacked = sum(span.frames for span in schedule.spans) * (made // schedule.generated)
    return "\n".join(
        [
            str(schedule),
            f"what a section sees, at {format.height} x {format.width}",
            *outer(left), *spans(left.far), *skipped(left), *spans(left.near),
            line(generated, schedule.generated, "made", made),
            *spans(right.near), *skipped(right), *spans(right.far), *outer(right),
            f"context {context} of {context + made} tokens; unpacked it would be {unpacked} of {unpacked + made}",
        ]
    )  # fmt: skip


def draw_plan(plan: Plan, format: Format, columns: int = 100) -> str:
    """The sections in the order of making, a line for each: what it makes, where RoPE puts it, what it sees and costs.

    Lines are at most `columns` characters long, or as long as it takes to draw the video 20 characters wide.

    >>> from longtake.plan import make_plan
    >>> from longtake.schedule import parse
    >>> print(draw_plan(make_plan(parse("g2_f1k1f2k2_td"), 9, "inverted"), Format()))
    order inverted: 4 sections, 9 frames, 33 images, 1.10 s at 30 images/s
    # made   1 2 seen through k1, k2   - known, not seen   a column is 1 frame
      section  frames     positions    context  0
            1  7-8        7-8                0  -      ##
            2  5-6        5-6             1950  -    ##12
            3  3-4        3-4             1950  -  ##122-
            4  1-2        1-2             1950  -##122---
    """
    n, wide = len(plan.sections), max(9, 2 * len(str(plan.frames)) + 1)
    per_column = -(-plan.frames // max(20, columns - 26 - 2 * wide))
    marks = marks_of(plan.schedule)
    length = f"{plan.frames} frames, {format.images(plan.frames)} images, {format.seconds(plan.frames):.2f} s"
    tail = {plan.schedule.left.tail, plan.schedule.right.tail} & {"ta", "tc"}
    lines = [
        f"order {plan.order}: {n} section{'s' * (n > 1)}, {length} at {format.fps:g} images/s",
        *legend(marks, per_column, columns, ["t tail"] * bool(tail)),
        f"  section  {'frames':<{wide}}  {'positions':<{wide}}  {'context':>9}  {axis(plan.frames, per_column)}",
    ]
    for row in walk(plan, ROWS):
        if isinstance(row, Stage):
            section = row.section
            made, at = ends(section.frames), ends(section.positions)
            drawn = strip(row, plan.frames, per_column, marks)
            context = section.context_tokens(*format.grid)
            lines.append(f"  {section.index + 1:>7}  {made:<{wide}}  {at:<{wide}}  {context:>9}  {drawn}")
        else:
            lines.append(f"      ...  {row} sections are left out here")
    return "\n".join(lines)


def legend(marks: dict[Kernel, str], per_column: int, columns: int, more: Sequence[str] = ()) -> list[str]:
    """What the characters of a strip mean, in as many lines as it takes."""
    finest_first = sorted(marks, key=lambda kernel: (kernel.volume, kernel.t, kernel.h))
    seen = " ".join(marks[kernel] for kernel in finest_first)
    entries = ["# made", *([f"{seen} seen through {', '.join(map(str, finest_first))}"] if marks else []), *more]
    lines = [""]
    for entry in (*entries, "- known, not seen", f"a column is {per_column} frame{'s' * (per_column > 1)}"):
        longer = f"{lines[-1]}   {entry}" if lines[-1] else entry
        lines = [*lines[:-1], longer] if len(longer) <= columns else [*lines, entry]
    return lines


def walk(plan: Plan, most: int) -> Iterator[Stage | int]:
    """The sections of a plan, the middle of more than `most` left out: their number stands for them."""
    n, known = len(plan.sections), Known(plan.known)
    out = range(most // 2, n - most // 2) if n > most else range(0)
    for section in plan.sections:
        if section.index not in out:
            yield Stage(section, known.runs)
        elif section.index == out.start:
            yield len(out)
        known.add(range(section.frames[0], section.frames[-1] + 1))


def round_step(least: float, finest: float = 0.1) -> float:
    """The smallest of 1, 2, 5, 10, ... times `finest` that is not below `least`: from tick to tick of a scale of time.

    >>> round_step(0.9), round_step(13.0)
    (1.0, 20.0)
    """
    return next(step for step in (finest * m * 10**e for e in range(12) for m in (1, 2, 5)) if step >= least)


def ends(numbers: tuple[int, ...]) -> str:
    """The first and the last of some numbers in a row."""
    first, last = numbers[0], numbers[-1]
    return f"{first}-{last}" if first != last else f"{first}"


def _through(kernel: Kernel) -> str:
    return f"through {kernel.t:>3} x{kernel.h:>3} x{kernel.w:>3}"


def marks_of(schedule: Schedule) -> dict[Kernel, str]:
    """A character for each kernel: its number where it has one of a single digit, else a letter."""
    letters = iter("abcdefghijklmnopqrsuvwxyz" * len(schedule.kernels))
    short = {kernel: str(kernel)[1:] for kernel in schedule.kernels}
    return {kernel: name if len(name) == 1 else next(letters) for kernel, name in short.items()}


def strip(row: Stage, frames: int, per_column: int, marks: dict[Kernel, str]) -> str:
    """The video as a section finds it, a character a column: what is seen over what is made over what is known.

    A column of which most is made says so, and at least one does.
    """
    columns = [" "] * -(-frames // per_column)
    made = Counter(f // per_column for f in row.section.frames)
    most = max(made, key=lambda column: made[column])

    def put(mark: str, numbers: Iterable[int]) -> None:
        for column in {f // per_column for f in numbers if 0 <= f < frames}:  # others are zeros
            columns[column] = mark

    for run in row.known:
        put("-", [*range(run.start, run.stop, per_column), run.stop - 1])
    put("#", row.section.frames)
    for look in sorted(row.section.sees, key=lambda look: (not look.tail, -look.kernel.volume)):
        put("t" if look.tail else marks[look.kernel], look.frames)
    for column, count in made.items():
        if column == most or 2 * count > per_column:
            columns[column] = "#"
    return "".join(columns).rstrip()


def axis(frames: int, per_column: int) -> str:
    """Frame numbers above every tenth column, as far as there is room for them."""
    columns = -(-frames // per_column)
    ticks = [f"{column * per_column:<10}" for column in range(0, columns, 10)]
    while len("".join(ticks).rstrip()) > columns:
        ticks.pop()
    return "".join(ticks).rstrip()
