"""From a request to a video: the engine is one generator of events."""

from longtake.pipeline.events import Event, Finished, Planned, SectionDone, Step
from longtake.pipeline.generate import generate, make, reroll
from longtake.pipeline.meter import Meter, measure
from longtake.pipeline.preflight import Preflight, check_output, find_device, preflight
from longtake.pipeline.request import Config, Request
from longtake.pipeline.run import Run

__all__ = [
    "Config",
    "Event",
    "Finished",
    "Meter",
    "Planned",
    "Preflight",
    "Request",
    "Run",
    "SectionDone",
    "Step",
    "check_output",
    "find_device",
    "generate",
    "make",
    "measure",
    "preflight",
    "reroll",
]
