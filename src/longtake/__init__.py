"""The complete, open FramePack: long videos, made section by section.

>>> from longtake import parse
>>> parse("td_f16k4f2k2f1k1_g9").context_tokens(height=60, width=104)
2366

Names are loaded when they are first used: importing longtake does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtake.backbones import Backbone, load_backbone
    from longtake.errors import LongtakeError
    from longtake.pipeline import (
        Extension,
        Finished,
        Planned,
        Request,
        Run,
        SectionDone,
        Step,
        extend,
        generate,
        make,
        preflight,
        reroll,
    )
    from longtake.plan import Cue, Plan, Section, Storyboard, make_plan, read_storyboard
    from longtake.schedule import Schedule, parse

_HOMES = {
    "Backbone": "longtake.backbones",
    "Cue": "longtake.plan",
    "Extension": "longtake.pipeline",
    "Finished": "longtake.pipeline",
    "LongtakeError": "longtake.errors",
    "Plan": "longtake.plan",
    "Planned": "longtake.pipeline",
    "Request": "longtake.pipeline",
    "Run": "longtake.pipeline",
    "Schedule": "longtake.schedule",
    "Section": "longtake.plan",
    "SectionDone": "longtake.pipeline",
    "Step": "longtake.pipeline",
    "Storyboard": "longtake.plan",
    "extend": "longtake.pipeline",
    "generate": "longtake.pipeline",
    "load_backbone": "longtake.backbones",
    "make": "longtake.pipeline",
    "make_plan": "longtake.plan",
    "parse": "longtake.schedule",
    "preflight": "longtake.pipeline",
    "read_storyboard": "longtake.plan",
    "reroll": "longtake.pipeline",
}

__all__ = [
    "Backbone",
    "Cue",
    "Extension",
    "Finished",
    "LongtakeError",
    "Plan",
    "Planned",
    "Request",
    "Run",
    "Schedule",
    "Section",
    "SectionDone",
    "Step",
    "Storyboard",
    "extend",
    "generate",
    "load_backbone",
    "make",
    "make_plan",
    "parse",
    "preflight",
    "read_storyboard",
    "reroll",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'longtake' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
