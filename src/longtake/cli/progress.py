"""One progress display for everything that makes a video: sections and steps, time left, where the file grows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longtake.pipeline import Event

__all__ = ["follow"]


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
                       "finished": event.finished, "run": str(event.folder), "unread": event.unread}  # fmt: skip
            case SectionDone():
                row = {"event": "section", "section": event.section.index, "frames": list(event.section.frames),
                       "images": event.images, "seconds": round(event.seconds, 3)}  # fmt: skip
            case Finished():
                row = {"event": "finished", "video": str(event.path), "images": event.images}
            case _:
                continue
        print(json.dumps(row), flush=True)


def _show(events: Iterator[Event]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from longtake.pipeline import Finished, Planned, SectionDone, Step

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with console.status("getting ready"):
        planned = next(events)  # or an error, which then stands alone
    assert isinstance(planned, Planned)
    steps, total = planned.steps, len(planned.plan.sections)
    console.print(
        f"{total} sections of {steps} steps; the video grows in {planned.video}", soft_wrap=True, markup=False
    )
    if planned.unread:
        console.print(f"the model cannot read of the prompt: {', '.join(planned.unread)}", soft_wrap=True, markup=False)
    finished: list[Path] = []
    with Progress(*columns, console=console, transient=False) as bars:
        task = bars.add_task("getting ready", total=steps * total, completed=steps * planned.finished, note="")
        for event in events:
            match event:
                case Step():
                    place = event.section.index
                    bars.update(
                        task,
                        description=f"section {place + 1}/{total}",
                        completed=place * steps + event.step,
                        note=f"step {event.step}/{steps}",
                    )
                case SectionDone():
                    bars.update(task, completed=(event.section.index + 1) * steps, note=f"{event.images} images")
                    if not console.is_terminal:  # where a bar cannot move
                        console.print(f"section {event.section.index + 1}/{total}: {event.seconds:.1f} s")
                case Finished():
                    bars.update(task, description="finished", completed=steps * total, note=f"{event.images} images")
                    finished.append(event.path)
    for path in finished:
        print(path)
