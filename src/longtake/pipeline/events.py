"""What the engine says while it works. Closing the generator that says it stops the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from longtake.pipeline.meter import Meter
from longtake.plan import Plan, Section

__all__ = ["Event", "Finished", "Planned", "SectionDone", "Step"]


@dataclass(frozen=True, slots=True)
class Planned:
    """The work is known; `finished` sections are there already from an earlier time."""

    plan: Plan
    steps: int  # of each section, but of the first where that takes more
    finished: int
    folder: Path
    video: Path  # the file that grows
    unread: tuple[str, ...]  # what the model cannot read of the prompt: unknown words, and what comes too late
    meters: tuple[Meter, ...]  # of sections whose images are there already, in time order
    remarks: tuple[str, ...] = ()  # what became of LoRAs, how the model runs here: for the user to read


@dataclass(frozen=True, slots=True)
class Step:
    """A section came one step nearer; `latents` are still noisy, and small in the first steps from coarse to fine."""

    section: Section
    step: int  # from 1
    latents: Float[Tensor, "1 c t h w"]
    steps: int  # of this section
    # What the network takes them to become, the prediction that this step followed; themselves, where it was not asked.
    clean: Float[Tensor, "1 c t h w"]


@dataclass(frozen=True, slots=True)
class SectionDone:
    """A section is finished and safe on disk; `images` of it and of earlier ones are in the video now.

    `meters` are of the sections that were decoded now, in the order of decoding: a meter belongs to the event at which
    a section's images are first there. In time order that is the section itself. In other orders it waits for the
    section before it in time, so there can be none, or one of another section, or two. Those that were there when a run
    is resumed come with `Planned`, and not again.
    """

    section: Section
    latents: Float[Tensor, "1 c t h w"]
    images: int
    seconds: float  # that this section took
    meters: tuple[Meter, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The whole video is there."""

    path: Path
    images: int


Event = Planned | Step | SectionDone | Finished
