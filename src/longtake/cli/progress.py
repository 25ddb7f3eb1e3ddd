"""One progress display for everything that makes a video: sections and steps, time left, where the file grows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longtake.pipeline import Curve, Event, Meter

__all__ = ["follow"]

WORDS = 43  # columns that names and numbers take beside the three curves


def follow(events: Iterator[Event], folder: Path, as_json: bool) -> int:
    """Shows events until they end. With `as_json` each section is a line of JSON on stdout.

    The exit code is 130 when the user interrupts; what is finished stays and the way to go on is said.
    """
    try:
        if as_json:
            _print_json(events)
        else:
            _show(events)
    except KeyboardInterrupt:
        print("\nStopped; every finished section is kept.", file=sys.stderr)
        if (folder / "config.json").exists():
            print(f"  go on with: longtake resume {folder}", file=sys.stderr)
        return 130
    return 0


def _print_json(events: Iterator[Event]) -> None:
    from longtake.pipeline import Finished, Planned, SectionDone

    for event in events:
        match event:
            case Planned():
                row = {"event": "planned", "sections": len(event.plan.sections), "steps": event.steps,
                       "finished": event.finished, "run": str(event.folder), "unread": event.unread,
                       "remarks": event.remarks,
                       "meters": [asdict(meter) for meter in event.meters]}  # fmt: skip
            case SectionDone():
                row = {"event": "section", "section": event.section.index, "frames": list(event.section.frames),
                       "images": event.images, "seconds": round(event.seconds, 3),
                       "meters": [asdict(meter) for meter in event.meters]}  # fmt: skip
            case Finished():
                row = {"event": "finished", "video": str(event.path), "images": event.images}
            case _:
                continue
        print(json.dumps(row), flush=True)


def _show(events: Iterator[Event]) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    from longtake.pipeline import Finished, Planned, SectionDone, Step, ramp

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with console.status("getting ready"):
        planned = next(events)  # or an error, which then stands alone
    assert isinstance(planned, Planned)
    steps, total = planned.steps, len(planned.plan.sections)
    count = "1 section" if total == 1 else f"{total} sections"
    console.print(f"{count} of {steps} steps; the video grows in {planned.video}", soft_wrap=True, markup=False)
    if planned.unread:
        console.print(f"the model cannot read of the prompt: {', '.join(planned.unread)}", soft_wrap=True, markup=False)
    for remark in planned.remarks:
        console.print(remark, soft_wrap=True, markup=False)
    frames = sorted(section.frames for section in planned.plan.sections)
    meters = list(planned.meters)  # in the order in which they came
    levels = ramp(console.encoding)
    finished: list[Path] = []
    bars = Progress(*columns, console=console)
    curves = Text(_curves(meters, total, console.width, levels), no_wrap=True, overflow="crop")
    with Live(Group(bars, curves), console=console):
        task = bars.add_task("getting ready", total=steps * total, completed=steps * planned.finished, note="")
        for event in events:
            match event:
                case Step():
                    place = event.section.index
                    bars.update(
                        task,
                        description=_named(place, total),
                        completed=steps * (place + event.step / event.steps),
                        note=f"step {event.step}/{event.steps}",
                    )
                case SectionDone():
                    bars.update(task, completed=(event.section.index + 1) * steps, note=f"{event.images} images")
                    meters += event.meters
                    curves.plain = _curves(meters, total, console.width, levels)
                    if not console.is_terminal:  # where a bar cannot move
                        console.print(f"{_named(event.section.index, total)}: {event.seconds:.1f} s")
                        for meter in event.meters:
                            made = frames[meter.place]
                            console.print(f"  frames {made[0]}-{made[-1]}: {_numbers(meter)}")
                case Finished():
                    bars.update(task, description="finished", completed=steps * total, note=f"{event.images} images")
                    finished.append(event.path)
    if not console.is_interactive:
        console.print()  # ends the last line, as on a terminal
    for path in finished:
        print(path)


def _named(section: int, total: int) -> str:
    """A section by the number that `resume --from-section` wants, and how many that makes."""
    return f"section {section} ({section + 1} of {total})"


def _curves(meters: list[Meter], total: int, columns: int, levels: str) -> str:
    """The curves of what the images show, each with the number of the section that was measured last."""
    from longtake.pipeline import CURVES, amount, sparkline, squeezed

    if not meters:
        return ""
    room = max(1, (columns - WORDS) // 3)

    def drawn(curve: Curve) -> str:
        known = {meter.place: curve.of(meter) for meter in meters}
        values = squeezed([known.get(place) for place in range(total)], room)
        line = sparkline(values, max(curve.top, *known.values()), levels)
        return f"{curve.name} {line} {amount(curve.of(meters[-1]))}"

    return "  ".join(drawn(curve) for curve in CURVES if curve.source == "image")


def _numbers(meter: Meter) -> str:
    from longtake.pipeline import CURVES, amount

    return ", ".join(f"{curve.name} {amount(curve.of(meter))}" for curve in CURVES if curve.source == "image")
