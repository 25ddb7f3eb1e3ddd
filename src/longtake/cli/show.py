"""`longtake show`: a schedule and its plan, several beside each other, or a run over time, as text, SVG or JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from longtake.errors import InputError, ModelError, OutputError, PlanError, ScheduleError
from longtake.plan import (
    VANILLA,
    Format,
    Plan,
    default_order,
    draw_orders,
    draw_orders_svg,
    draw_plan,
    draw_schedule,
    draw_structures,
    draw_structures_svg,
    draw_svg,
    make_plan,
    plan_each,
    sections_for,
    sections_until,
)
from longtake.schedule import PRESETS, Schedule, find_schedule, parse

if TYPE_CHECKING:
    from longtake.pipeline import Run

__all__ = ["Options", "run"]

LONGEST = 24 * 3600.0  # seconds of video


@dataclass(frozen=True, slots=True)
class Options:
    """Draws a schedule and the plan of a video: who sees what, at which cost, in which order. Or a run over time.

    A name such as td_f16k4f2k2f1k1_g9 is a time line, the past on the left: 16 frames through kernel 4, 2 through
    kernel 2, 1 through kernel 1, then 9 frames made. The folder of a run is drawn with its drift and motion from
    section to section, as far as it is, and with what it is made with.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """A name in that notation, geometric, level-duplication, temporal-kernels, important-start, symmetric; or a run."""
    figure1: bool = False
    """Draw the five structures of the paper's Figure 1 instead, and with --seconds their plans."""
    orders: bool = False
    """Draw one video in every order instead: what is made when, and what it sees."""
    seconds: float | None = None
    """How long the planned video is, to the nearest whole section; default: 5, or 15 with --orders."""
    fps: float | None = None
    """Images a second; default: 30, or the model's."""
    order: str | None = None
    """vanilla (forward, streams), inverted (from the end to the start image), anti_drifting (the ending second) or
    planned (endpoints first; planned:6,3 says how many sections apart, coarse to fine); default: the one that the
    schedule is made for."""
    gaps: Literal["true", "clamped", "near"] | None = None
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
    gaps: Literal["true", "clamped", "near"] = "clamped"
    missing: Literal["absent", "zeros"] = "absent"


@dataclass(frozen=True, slots=True)
class _Drawing:
    """What is shown, in each of its forms; each is made when it is asked for."""

    text: Callable[[int], str]  # of so many columns
    svg: Callable[[], str]
    table: Callable[[], dict[str, Any]]


def run(options: Options) -> int:
    """Draws."""
    if [options.name is not None, options.figure1, options.orders].count(True) != 1:
        raise InputError("expected one of: the NAME of a schedule, the folder of a run, --figure1, --orders")
    if options.name is None and options.order:
        raise InputError(f"the order {options.order}: expected the NAME of a schedule that is made in it")
    if options.name is not None and _means_a_folder(options.name):
        drawing = _run(options, options.name)
    else:
        drawing = _planned(options)
    if options.output:
        _write(options.output, drawing.svg())
    if options.json:
        print(json.dumps(drawing.table()))
    else:
        print(drawing.text(shutil.get_terminal_size(fallback=(100, 24)).columns))
    return 0


def _planned(options: Options) -> _Drawing:
    """What is planned, and not begun."""
    defaults = _defaults_of(options.model) if options.model else _Defaults()
    format = _format(options, defaults)
    if options.figure1:
        return _figure1(options, defaults, format)
    if options.orders:
        return _orders(options, defaults, format)
    return _schedule(options, find_schedule(str(options.name)), defaults, format)


PLANNING = ("seconds", "fps", "order", "gaps", "height", "width", "model")  # options of a plan


def _means_a_folder(name: str) -> bool:
    """True if a name cannot be a schedule's and there is such a file, or it has signs that no schedule has."""
    try:
        find_schedule(name)
    except ScheduleError:
        return Path(name).exists() or not set("/\\.").isdisjoint(name)
    return False


def _run(options: Options, folder: str) -> _Drawing:
    from longtake.pipeline import Run, draw_run, draw_run_svg, ramp

    run = Run.open(Path(folder))
    given = [name for name in PLANNING if getattr(options, name) is not None]
    if given:
        raise InputError(f"--{given[0]} is for the plan of a schedule; {folder} is a run, which has its own")
    levels = ramp(sys.stdout.encoding)
    return _Drawing(lambda columns: draw_run(run, columns, levels), lambda: draw_run_svg(run), lambda: _run_table(run))


def _run_table(run: Run) -> dict[str, Any]:
    """A run as plain data, its sections in time order."""
    from longtake.pipeline import rows_of

    manifest = run.read_manifest()
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
        "config": json.loads(run.config.model_dump_json()),
        "manifest": asdict(manifest) if manifest else None,
        "sections": sections,
    }


def _schedule(options: Options, schedule: Schedule, defaults: _Defaults, format: Format) -> _Drawing:
    plan = _plan(options, schedule, defaults, format)

    def text(columns: int) -> str:
        return "\n\n".join([draw_schedule(schedule, format), *([draw_plan(plan, format, columns)] if plan else [])])

    return _Drawing(text, lambda: draw_svg(schedule, format, plan), lambda: _table(schedule, plan, format))


def _figure1(options: Options, defaults: _Defaults, format: Format) -> _Drawing:
    plans: dict[str, Plan] = {}
    if options.seconds is not None or options.json:
        drawn = {name: _plan(options, find_schedule(name), defaults, format) for name in PRESETS}
        plans = {name: plan for name, plan in drawn.items() if plan}
    return _Drawing(
        lambda columns: draw_structures(format, plans, columns),
        lambda: draw_structures_svg(format, plans),
        lambda: {
            "structures": [
                {"name": name, "why": PRESETS[name].why} | _table(plan.schedule, plan, format)
                for name, plan in plans.items()
            ]
        },
    )


def _orders(options: Options, defaults: _Defaults, format: Format) -> _Drawing:
    g = parse(VANILLA).generated
    plans = plan_each(_frames(options, 15.0, g, format), options.gaps or defaults.gaps, defaults.missing)
    return _Drawing(
        lambda columns: draw_orders(plans, format, columns),
        lambda: draw_orders_svg(plans, format),
        lambda: {
            "orders": [
                {"order": plan.order, "first_second_after": sections_until(plan, format)}
                | _table(plan.schedule, plan, format)
                for plan in plans
            ]
        },
    )


def _defaults_of(name: str) -> _Defaults:
    from longtake.backbones import find_model
    from longtake.backbones.outline import settings_of
    from longtake.backbones.registry import locate

    folder = find_model(name)
    try:
        codec = json.loads((folder / "vae" / "config.json").read_text())
        _, *patch = json.loads((folder / "transformer" / "config.json").read_text())["patch_size"]
        ratios = codec.get("scale_factor_spatial", 8), codec.get("scale_factor_temporal", 4)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: not a whole model folder ({error})") from error
    settings = settings_of(locate(name))
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
    frames = _frames(options, 5.0, schedule.generated, format)
    try:
        order = options.order or default_order(schedule)
    except PlanError as error:
        if options.seconds is not None:
            raise
        print(f"no plan: {error}", file=sys.stderr)
        return None
    return make_plan(schedule, frames, order, options.gaps or defaults.gaps, defaults.missing)


def _frames(options: Options, default: float, generated: int, format: Format) -> int:
    """Latent frames of the planned video."""
    seconds = default if options.seconds is None else options.seconds
    if not 0 < seconds <= LONGEST:
        raise InputError(f"a video of {seconds:g} s: expected more than 0 and at most {LONGEST:.0f}")
    return 1 + generated * sections_for(seconds, format.fps, generated, format.temporal_ratio)


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
