"""`longtake show NAME`: a schedule and the plan of a video, or a run over time, as text, SVG or JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from longtake.errors import InputError, ModelError, OutputError, PlanError, ScheduleError
from longtake.plan import Format, Plan, default_order, draw_plan, draw_schedule, draw_svg, make_plan, sections_for
from longtake.schedule import Schedule, parse

if TYPE_CHECKING:
    from longtake.pipeline import Run

__all__ = ["Options", "run"]

LONGEST = 24 * 3600.0  # seconds of video


@dataclass(frozen=True, slots=True)
class Options:
    """Draws a schedule and the plan of a video: who sees what, at which cost, in which order. Or a run over time.

    A name such as td_f16k4f2k2f1k1_g9 is a time line, the past on the left: 16 frames through kernel 4, 2 through
    kernel 2, 1 through kernel 1, then 9 frames made. The folder of a run is drawn with its drift and motion from
    section to section, as far as it is.
    """

    name: Annotated[str, tyro.conf.Positional]
    """The schedule, or the folder of a run."""
    seconds: float | None = None
    """How long the planned video is, to the nearest whole section; default: 5."""
    fps: float | None = None
    """Images a second; default: 30, or the model's."""
    order: str | None = None
    """vanilla or inverted; default: the one that the schedule is made for."""
    gaps: Literal["true", "clamped"] | None = None
    """Whether RoPE sees true distances or those of released models; default: clamped, or the model's."""
    height: int | None = None
    """Pixels; default: 480, or the model's."""
    width: int | None = None
    """Pixels; default: 832, or the model's."""
    model: str | None = None
    """A model's name or folder, for its defaults; without one 8 x 8 pixels of 4 images make a latent pixel."""
    json: bool = False
    """The plan or the run as JSON on stdout instead of the drawing."""
    output: Path | None = None
    """Also write the drawing as an SVG file."""


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What a plan is drawn for if nothing is said."""

    format: Format = field(default_factory=Format)
    patch: tuple[int, int] = (2, 2)  # latent rows and columns that the network reads as one
    gaps: Literal["true", "clamped"] = "clamped"
    missing: Literal["absent", "zeros"] = "absent"


def run(options: Options) -> int:
    """Draws."""
    try:
        schedule = parse(options.name)
    except ScheduleError:
        if Path(options.name).exists() or not set("/\\.").isdisjoint(options.name):  # no schedule has these
            return _run(options)
        raise
    defaults = _defaults_of(options.model) if options.model else _Defaults()
    format = _format(options, defaults)
    plan = _plan(options, schedule, defaults, format)
    if options.output:
        _write(options.output, draw_svg(schedule, format, plan))
    if options.json:
        print(json.dumps(_table(schedule, plan, format)))
    else:
        columns = shutil.get_terminal_size(fallback=(100, 24)).columns
        drawings = [draw_schedule(schedule, format)]
        drawings += [draw_plan(plan, format, columns)] if plan else []
        print("\n\n".join(drawings))
    return 0


PLANNING = ("seconds", "fps", "order", "gaps", "height", "width", "model")  # options of a plan


def _run(options: Options) -> int:
    """Draws a run."""
    from longtake.pipeline import Run, draw_run, draw_run_svg, ramp

    run = Run.open(Path(options.name))
    given = [name for name in PLANNING if getattr(options, name) is not None]
    if given:
        raise InputError(f"--{given[0]} is for the plan of a schedule; {options.name} is a run, which has its own")
    if options.output:
        _write(options.output, draw_run_svg(run))
    if options.json:
        print(json.dumps(_run_table(run)))
    else:
        columns = shutil.get_terminal_size(fallback=(100, 24)).columns
        print(draw_run(run, columns, ramp(sys.stdout.encoding)))
    return 0


def _run_table(run: Run) -> dict[str, Any]:
    """A run as plain data, its sections in time order."""
    from longtake.pipeline import rows_of

    sections = [
        {
            "section": row.section.index,
            "frames": row.section.frames,
            "seconds": [round(row.begins, 3), round(row.ends, 3)],
            "seed": row.seed,
            "made": row.made,
            "meter": asdict(row.meter) if row.meter else None,
        }
        for row in rows_of(run)
    ]
    return {
        "run": str(run.folder),
        "request": run.request.model_dump(mode="json"),
        "config": run.config.model_dump(mode="json"),
        "sections": sections,
    }


def _defaults_of(name: str) -> _Defaults:
    from longtake.backbones import find_model, load_settings

    folder = find_model(name)
    settings = load_settings(folder)
    try:
        codec = json.loads((folder / "vae" / "config.json").read_text())
        _, *patch = json.loads((folder / "transformer" / "config.json").read_text())["patch_size"]
        ratios = codec.get("scale_factor_spatial", 8), codec.get("scale_factor_temporal", 4)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: not a whole model folder ({error})") from error
    format = Format(settings.height, settings.width, settings.fps, *ratios)
    return _Defaults(format, (patch[0], patch[1]), settings.gaps, settings.missing)


def _format(options: Options, defaults: _Defaults) -> Format:
    given = defaults.format
    fps = given.fps if options.fps is None else options.fps
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"{fps:g} images a second: expected a number above 0")
    height, width = (
        _side(name, default if asked is None else asked, given.spatial_ratio * patch)
        for name, asked, default, patch in (
            ("height", options.height, given.height, defaults.patch[0]),
            ("width", options.width, given.width, defaults.patch[1]),
        )
    )
    return Format(height, width, fps, given.spatial_ratio, given.temporal_ratio)


def _side(name: str, pixels: int, unit: int) -> int:
    if pixels % unit or pixels < unit:
        below = max(1, pixels // unit) * unit
        raise InputError(f"a {name} of {pixels} is off the grid of {unit} pixels; try {below} or {below + unit}")
    return pixels


def _plan(options: Options, schedule: Schedule, defaults: _Defaults, format: Format) -> Plan | None:
    """The plan; none where nothing but the schedule was asked for and no order can serve it."""
    seconds = 5.0 if options.seconds is None else options.seconds
    if not 0 < seconds <= LONGEST:
        raise InputError(f"a video of {seconds:g} s: expected more than 0 and at most {LONGEST:.0f}")
    try:
        order = options.order or default_order(schedule)
    except PlanError as error:
        if options.seconds is not None:
            raise
        print(f"no plan: {error}", file=sys.stderr)
        return None
    g = schedule.generated
    frames = 1 + g * sections_for(seconds, format.fps, g, format.temporal_ratio)
    return make_plan(schedule, frames, order, options.gaps or defaults.gaps, defaults.missing)


def _table(schedule: Schedule, plan: Plan | None, format: Format) -> dict[str, Any]:
    """The plan as plain data. The kernel of a tail is what its pooling makes one token of."""
    grid = format.grid
    sections = [
        {
            "index": section.index,
            "frames": section.frames,
            "positions": section.positions,
            "sees": [
                {
                    "frames": look.frames,
                    "kernel": [kernel.t, kernel.h, kernel.w],
                    "positions": look.positions,
                    "tokens": look.tokens(*grid),
                }
                for look in section.sees
                for kernel in [look.pooling(*grid)]
            ],
        }
        for section in (plan.sections if plan else ())
    ]
    return {
        "schedule": str(schedule),
        "context_tokens": schedule.context_tokens(*grid),
        "section_tokens": schedule.section_tokens(*grid),
        "sections": sections,
    }


def _write(path: Path, drawing: str) -> None:
    """All of the drawing, or nothing."""
    if path.suffix.lower() != ".svg":
        raise OutputError(f"{path}: the drawing is an SVG; name a file that ends in .svg")
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(drawing, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
    print(f"wrote {path}", file=sys.stderr)
