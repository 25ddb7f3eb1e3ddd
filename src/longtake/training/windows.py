"""Which section a training step trains: drawn from the very plans that inference follows.

A step draws an order, a length of video and a section of its plan; all samples of the batch share them, so a batch
needs no padding and no mask, and missing history is absent in training as it is in use.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
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
    given: int = 0  # the section in time, from 1, whose last image is given beforehand; 0: none is
    earlier: tuple[Section, ...] = ()  # of the same plan, in the order of making

    @property
    def made(self) -> slice:
        """The frames that the section makes, of a track."""
        return slice(self.section.frames[0], self.section.frames[-1] + 1)

    @property
    def key(self) -> int:
        """The frame that is given beforehand; 0: none is."""
        return 1 + len(self.section.frames) * self.given if self.given else 0

    @property
    def seen(self) -> tuple[int, ...]:
        """The frames made before that the section sees, the nearest first."""
        frames = self.section.seen - {0, self.key}
        first, last = self.section.frames[0], self.section.frames[-1]
        return tuple(sorted(frames, key=lambda f: (max(first - f, f - last), f)))

    def near(self, count: int) -> tuple[int, ...]:
        """The `count` nearest frames that the section sees, if it sees more than these; else none."""
        return self.seen[:count] if len(self.seen) > count else ()

    def made_before(self, count: int) -> tuple[Section, ...]:
        """The last `count` of the earlier sections that the section sees, looking at frames of the window only."""
        whole = [e for e in self.earlier if e.frames[-1] < self.frames and not {*self.seen}.isdisjoint(e.frames)]
        return tuple(_within(section, {*range(self.frames), self.key}) for section in whole[-count:])


@lru_cache(maxsize=4096)  # all lengths, orders and given images that a training draws
def _plan(schedule: str, frames: int, order: str, gaps: Gaps, given: tuple[int, ...] = ()) -> Plan:
    return make_plan(parse(schedule), frames, order=order, gaps=gaps, given=given)


def _window(config: SectionConfig, share: str, sections: int, made: int, given: int = 0) -> Window:
    """The section made at a place of a plan, the end of the section `given` in time known to it if that is ahead."""
    order, schedule, generated = share.partition(" ")[0], config.schedule_of(share), config.generated
    key = 1 + generated * given
    plan = _plan(schedule, 1 + generated * sections, order, config.gaps, (key,) if given else ())
    section = plan.sections[made]
    ahead = given and key in section.seen and not any(key in earlier.frames for earlier in plan.sections[:made])
    track = {*section.frames, *section.seen} - ({key} if ahead else set())
    given = given if ahead else 0
    return Window(section, order, max(track) + 1, plan.place_of(section), given, plan.sections[:made])


def _startless(window: Window) -> Window:
    """The same section where the start image is not known."""

    def without(section: Section) -> Section:
        return replace(section, sees=tuple(look for look in section.sees if look.frames != (0,)))

    return replace(window, section=without(window.section), earlier=tuple(map(without, window.earlier)))


def _within(section: Section, frames: Collection[int]) -> Section:
    """The same section where only these frames are known."""
    looks = []
    for look in section.sees:
        places = [place for place, frame in enumerate(look.frames) if frame in frames]
        if places:
            kept, at = (tuple(numbers[place] for place in places) for numbers in (look.frames, look.positions))
            looks.append(replace(look, frames=kept, positions=at))
    return replace(section, sees=tuple(looks))


def plain_window(generated: int) -> Window:
    """The window of a plain video model: the start frame and one section, made together, that see nothing."""
    frames = tuple(range(generated + 1))
    return Window(Section(index=0, frames=frames, positions=frames, sees=()), "plain", generated + 1, 0)


def draw_window(config: SectionConfig, longest: int, draw: np.random.Generator) -> Window:
    """A random window in videos of at most `longest` frames."""
    shares = sorted(config.shares)
    if config.stage == "base":
        return plain_window(config.generated)
    weights = np.array([config.shares[share] for share in shares])
    share = shares[draw.choice(len(shares), p=weights / weights.sum())]
    most = (longest - 1) // config.generated
    kind = draw.random()
    if kind < config.first_share:
        made = 0
    elif kind < config.first_share + config.second_share or most < 3:
        made = min(1, most - 1)
    else:
        made = int(draw.integers(2, most))
    sections = int(draw.integers(made + 1, most + 1))
    given = int(draw.integers(1, sections + 1)) if draw.random() < config.key_share else 0
    given = given if parse(config.schedule_of(share)).ahead else 0
    window = _window(config, share, sections, made, given)
    return _startless(window) if draw.random() < config.startless_share else window


def every_window(config: SectionConfig, longest: int) -> list[Window]:
    """One window of each length of history and each order and schedule: the fixed set that losses are compared on."""
    if config.stage == "base":
        return [plain_window(config.generated)]
    windows = []
    for share in sorted(config.shares):
        most = (longest - 1) // config.generated
        windows += [_window(config, share, most, made) for made in range(most)]
    return windows
