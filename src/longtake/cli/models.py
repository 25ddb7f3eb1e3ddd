"""`longtake models`: the models that are known by name, what of them is here, and what the rest would take."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from longtake.cli.several import Several
from longtake.errors import InputError

if TYPE_CHECKING:
    from longtake.backbones import BackboneSettings, FoundModel, FoundPart

__all__ = ["Options", "run"]

WIDTH = 100  # columns


@dataclass(frozen=True, slots=True)
class Options:
    """Lists the models that are known by name: what of them is here, and how much the rest would be to download.

    They are looked for in the hub's cache, wherever HF_HOME and HF_HUB_CACHE say that it is. Nothing is downloaded
    unless --fetch asks for it.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """One of them, with its parts."""
    place: Several = ()
    """Where parts are that are not in the cache: PART=PATH, a folder or single file, or REPOSITORY=PATH, a folder."""
    check: bool = False
    """Also read the configs and the headers of the weight files, and refuse what does not fit."""
    fetch: bool = False
    """Download what is missing of the model; how much is said first."""
    json: bool = False
    """The list as JSON on stdout."""


def run(options: Options) -> int:
    """Lists."""
    if options.name is None and (options.check or options.fetch or options.place):
        raise InputError("--check, --fetch and --place are for one model: expected its NAME")
    from longtake.backbones import MODELS, check_model, fetch, find_parts, find_row

    rows = list(MODELS.values()) if options.name is None else [find_row(options.name)]
    if options.fetch:
        fetch(rows[0], say=lambda sentence: print(sentence, file=sys.stderr))
    found = [find_parts(row, places=_places(sum(options.place, ()))) for row in rows]
    if options.check:
        check_model(found[0])
    if options.json:
        print(json.dumps([_table(one) for one in found]))
    else:
        print(_details(found[0]) if options.name else _list(found))
    return 0


def _places(given: Iterable[str]) -> dict[str, Path]:
    for place in given:
        if "=" not in place:
            raise InputError(f"--place {place}: expected PART=PATH, such as transformer=model.safetensors")
    return {name: Path(path) for name, _, path in (place.partition("=") for place in given)}


def _state(found: FoundModel) -> str:
    """What is here, in a few words."""
    from longtake.backbones import said_bytes

    if not found.absent:
        return f"here, {said_bytes(sum(one.bytes for one in found.parts))}"
    here = len(found.parts) - len(found.absent)
    some = f"{here} of {len(found.parts)} parts here, " if here else ""
    about = "" if all(one.part.seen or not one.part.bytes for one in found.absent) else "about "
    return f"{some}{about}{said_bytes(found.download_bytes)} to fetch"


def _list(found: list[FoundModel]) -> str:
    """A model a line, those that can be used as they are first."""
    lines = []
    for use, title in (("ready", "Ready to make long videos"), ("base", "Bases to train")):
        lines += [title, ""]
        for one in (one for one in found if one.row.use == use):
            lines.append(f"  {one.row.name:<17} {_state(one)}")
            lines += textwrap.wrap(one.row.sentence, WIDTH, initial_indent=" " * 20, subsequent_indent=" " * 20)
        lines.append("")
    return "\n".join([*lines, "The parts of one of them:  longtake models NAME"])


def _details(found: FoundModel) -> str:
    """A model, with its parts."""
    row, settings = found.row, found.row.settings
    sizes = ", ".join(f"{bucket.height} x {bucket.width}" for bucket in row.buckets)
    about = [
        ("", row.sentence),
        ("licence", row.licence),
        ("network", row.network),
        ("order", f"{settings.order}, {settings.schedules[settings.order]}"),
        ("steps", f"{settings.steps} ({settings.solver}), {_shift(settings)}, guidance {_guidance(settings)}"),
        ("sizes", sizes),
        *([("unknown", row.unknown)] if row.unknown else []),
    ]
    lines = [f"{row.name}: {_state(found)}", ""]
    for name, text in about:
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<9}" if name else "  ", subsequent_indent=" " * 11)
    return "\n".join([*lines, "", *(_part(one) for one in found.parts)])


def _shift(settings: BackboneSettings) -> str:
    """How noise levels are shifted: by a number, or by one that grows with an image or the tokens of a section."""
    from longtake.flow import SizeShift

    if isinstance(settings.shift, float):
        return f"shift {settings.shift:g}"
    if isinstance(settings.shift, SizeShift):
        return f"shift {settings.shift.small:g} at 480 x 832, {settings.shift.large:g} at 720 x 1280"
    pixels = settings.height * settings.width
    few, many = (settings.shift_at(tokens, pixels) for tokens in (1_000, 10_000))
    return f"shift {few:.1f} at 1,000 noisy tokens, {many:.1f} at 10,000"


def _guidance(settings: BackboneSettings) -> str:
    distilled = "" if settings.distilled_guidance is None else f", distilled {settings.distilled_guidance:g}"
    second = f", {settings.second_guidance:g} below sigma {settings.boundary:g}" if settings.boundary else ""
    return f"{settings.guidance:g}{distilled}{second}"


def _part(one: FoundPart) -> str:
    from longtake.backbones import said_bytes

    if one.missing:
        about = "" if one.part.seen else "about "
        size = f"{about}{said_bytes(one.part.bytes)}" if one.part.bytes else "small"
        return f"  {one.part.name:<18} {size:<14} {one.missing}"
    return f"  {one.part.name:<18} {said_bytes(one.bytes):<14} {one.path}"


def _table(found: FoundModel) -> dict[str, Any]:
    """A model as plain data."""
    row = found.row
    return {
        "name": row.name,
        "sentence": row.sentence,
        "use": row.use,
        "family": row.family,
        "network": row.network,
        "licence": row.licence,
        "unknown": row.unknown,
        "order": row.settings.order,
        "schedule": row.settings.schedules[row.settings.order],
        "settings": row.settings.model_dump(mode="json"),
        "buckets": [asdict(bucket) for bucket in row.buckets],
        "here": not found.absent,
        "download_bytes": found.download_bytes,
        "parts": [
            {
                "name": one.part.name,
                "repository": one.part.repo,
                "folder": one.part.folder,
                "class": one.part.kind,
                "bytes": one.part.bytes,
                "approximate": not one.part.seen,
                "path": str(one.path) if one.path else None,
                "bytes_here": one.bytes,
                "commit": one.commit,
                "missing": one.missing,
            }
            for one in found.parts
        ],
    }
