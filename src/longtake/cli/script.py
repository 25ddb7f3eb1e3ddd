"""Which words and images reach which section, and what snapped where: as a table, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from longtake.plan import KeyImage, Plan, Script, Section, sections_that_see

if TYPE_CHECKING:
    from longtake.pipeline import Preflight

__all__ = ["draw_script", "say_snaps", "script_data"]

NARROWEST = 20  # columns of a prompt


def draw_script(checked: Preflight, columns: int) -> str:
    """A line for each section in time order, after each key image that it leads to, then what snapped where."""
    config, script, plan = checked.config, checked.script, checked.config.plan()
    sections = _in_time(plan)
    seeds = [str(config.seed_of(section)) for section in sections]
    wide = max(4, *map(len, seeds))
    head = f"  {'place':>5}  {'seconds':<15}  {'section':>7}  {'seed':>{wide}}  {'guidance':>8}  "
    room = max(NARROWEST, columns - len(head))
    keys = {key.frame: key for key in script.keys}
    lines = [f"{head}prompt"]
    for place, (section, seed) in enumerate(zip(sections, seeds, strict=True)):
        begins, ends = script.seconds * place, script.seconds * (place + 1)
        lines.append(
            f"  {place:>5}  {f'{begins:.2f}-{ends:.2f}':<15}  {section.index:>7}  {seed:>{wide}}  "
            f"{config.guidance_of(section):>8g}  {_shortened(config.prompt_of(section), room)}".rstrip()
        )
        key = keys.get(section.frames[-1] + 1)
        if key:
            lines.append(f"  {'':>5}  {key.seconds:.2f}  {key.image}, seen by {_named(plan, key)}")
    return "\n".join([*lines, "Sections are numbered in the order of making.", *say_snaps(script, columns)])


def say_snaps(script: Script, columns: int) -> Iterator[str]:
    """A line for each time that moved, under one that says why; none where none did."""
    if script.snaps:
        yield f"Times go to where a section begins or ends, every {script.seconds:g} s:"
    for snap in script.snaps:
        moved = f"  {snap.asked:g} s -> {snap.got:g} s  "
        yield moved + _shortened(str(snap.cue), max(NARROWEST, columns - len(moved)))


def script_data(checked: Preflight) -> dict[str, Any]:
    """The same as plain data."""
    config, script, plan = checked.config, checked.script, checked.config.plan()
    sections = [
        {
            "place": place,
            "begins": script.seconds * place,
            "ends": script.seconds * (place + 1),
            "section": section.index,
            "prompt": config.prompt_of(section),
            "seed": config.seed_of(section),
            "guidance": config.guidance_of(section),
        }
        for place, section in enumerate(_in_time(plan))
    ]
    images = [
        {
            "image": str(key.image),
            "seconds": key.seconds,
            "frame": key.frame,
            "seen_by": [section.index for section in sections_that_see(plan, key.frame)],
        }
        for key in script.keys
    ]
    snaps = [{"entry": str(snap.cue), "asked": snap.asked, "got": snap.got} for snap in script.snaps]
    return {"sections": sections, "images": images, "snaps": snaps}


def _in_time(plan: Plan) -> list[Section]:
    return sorted(plan.sections, key=lambda section: section.frames)


def _named(plan: Plan, key: KeyImage) -> str:
    """The sections that see a key image, those in a row as one."""
    numbers = [section.index for section in sections_that_see(plan, key.frame)]
    starts = [numbers[0], *(b for a, b in pairwise(numbers) if b != a + 1)]
    ends = [*(a for a, b in pairwise(numbers) if b != a + 1), numbers[-1]]
    runs = [f"{a}-{b}" if a < b else f"{a}" for a, b in zip(starts, ends, strict=True)]
    return f"section{'s' * (len(numbers) > 1)} {', '.join(runs)}"


def _shortened(words: str, room: int) -> str:
    """Words in so many columns; what is left out is the middle, since the end often makes the difference.

    >>> _shortened("a red ball on a gray floor, the camera orbits left", 30)
    'a red ball on...ra orbits left'
    """
    if len(words) <= room:
        return words
    head = (room - 3) // 2
    return f"{words[:head]}...{words[len(words) - (room - 3 - head) :]}"
