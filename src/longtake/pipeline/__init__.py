"""From a request to a video: the engine is one generator of events."""

from longtake.backbones.running import Runtime
from longtake.pipeline.curves import CURVES, Curve, Row, amount, draw_run, ramp, rows_of, sparkline, squeezed
from longtake.pipeline.events import Event, Finished, Planned, SectionDone, Step
from longtake.pipeline.generate import begin, extend, generate, make, reroll
from longtake.pipeline.meter import Meter, measure
from longtake.pipeline.picture import draw_run_svg
from longtake.pipeline.preflight import Preflight, check_output, find_device, preflight
from longtake.pipeline.request import Config, Extension, Request, Source
from longtake.pipeline.run import Run
from longtake.pipeline.shelf import Placed, Shelf

__all__ = [
    "CURVES",
    "Config",
    "Curve",
    "Event",
    "Extension",
    "Finished",
    "Meter",
    "Placed",
    "Planned",
    "Preflight",
    "Request",
    "Row",
    "Run",
    "Runtime",
    "SectionDone",
    "Shelf",
    "Source",
    "Step",
    "amount",
    "begin",
    "check_output",
    "draw_run",
    "draw_run_svg",
    "extend",
    "find_device",
    "generate",
    "make",
    "measure",
    "preflight",
    "ramp",
    "reroll",
    "rows_of",
    "sparkline",
    "squeezed",
]
