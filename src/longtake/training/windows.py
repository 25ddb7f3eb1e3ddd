"""Which section a training step trains: drawn from the very plans that inference follows.

A step draws an order, a length of video and a section of its plan; all samples of the batch share them, so a batch
needs no padding and no mask, and missing history is absent in training as it is in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from longtake.plan import Gaps, Plan, Section, make_plan
from longtake.schedule import parse
from longtake.training.config import SectionConfig

__all__ = ["Window", "draw_window", "every_window", "plain_window"]


@dataclass(frozen=True, slots=True)
class Window:
    """A section to train, and the number of frames that a track must have for it."""

    section: Section
    order: str
    frames: int  # of the whole video that the section belongs to
    place: int  # of the section in time, from 0: it makes frames 1 + place * g and on

    @property
    def made(self) -> slice:
        """The frames that the section makes, of a track."""
        return slice(self.section.frames[0], self.section.frames[-1] + 1)


@lru_cache
def _plan(schedule: str, frames: int, order: str, gaps: Gaps) -> Plan:
    return make_plan(parse(schedule), frames, order=order, gaps=gaps)


def _window(config: SectionConfig, order: str, sections: int, made: int) -> Window:
    generated = parse(config.schedules[order]).generated
    plan = _plan(config.schedules[order], 1 + generated * sections, order, config.gaps)
    section = plan.sections[made]
    return Window(
        section,
        order,
        max(section.frames + sum((s.frames for s in section.sees), ())) + 1,
        (section.frames[0] - 1) // generated,
    )


def plain_window(generated: int) -> Window:
    """The window of a plain video model: the start frame and one section, made together, that see nothing."""
    frames = tuple(range(generated + 1))
    return Window(Section(index=0, frames=frames, positions=frames, sees=()), "plain", generated + 1, 0)


def draw_window(config: SectionConfig, longest: int, draw: np.random.Generator) -> Window:
    """A random window in videos of at most `longest` frames."""
    orders = sorted(config.shares)
    if config.stage == "base":
        return plain_window(parse(next(iter(config.schedules.values()))).generated)
    order = orders[
        draw.choice(len(orders), p=np.array([config.shares[o] for o in orders]) / sum(config.shares.values()))
    ]
    most = (longest - 1) // parse(config.schedules[order]).generated
    kind = draw.random()
    if kind < config.first_share:
        made = 0
    elif kind < config.first_share + config.second_share or most < 3:
        made = min(1, most - 1)
    else:
        made = int(draw.integers(2, most))
    return _window(config, order, int(draw.integers(made + 1, most + 1)), made)


def every_window(config: SectionConfig, longest: int) -> list[Window]:
    """One window of each length of history and each order: the fixed set that losses are compared on."""
    if config.stage == "base":
        return [plain_window(parse(next(iter(config.schedules.values()))).generated)]
    windows = []
    for order in sorted(config.shares):
        most = (longest - 1) // parse(config.schedules[order]).generated
        windows += [_window(config, order, most, made) for made in range(most)]
    return windows
