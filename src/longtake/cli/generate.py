"""`longtake generate`: a video from a start image and a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from longtake.cli.asked import Asked, data_of, make_video, repeated
from longtake.errors import InputError

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Makes a video from a start image and a prompt.

    What is left out is the model's own choice. Every finished section is kept in the run folder, and
    `longtake resume` goes on from there.
    """

    image: Path | None = None
    """The start image, of any size; it is scaled to cover the model's picture and cropped around its center."""
    prompt: str | None = None
    """What happens; it may say when: a ball on a floor [0s: the camera orbits left] [6s-9s: the ball rolls]."""
    storyboard: Path | None = None
    """What happens when: prompts, seeds, guidance and key images over time, in a text file or JSON."""
    seconds: float | None = None
    """How long, to the nearest whole section."""
    output: Path = Path("longtake.mp4")
    """The finished video."""
    order: str | None = None
    """vanilla, inverted (from the end), anti_drifting (the ending second) or planned; planned:20,10 spaces them."""
    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(default_factory=Asked)


def run(options: Options) -> int:
    """Makes the video."""
    from longtake.pipeline.request import read_request

    o = options
    given = data_of(o.asked, o.prompt, o.storyboard, o.image, seconds=o.seconds, order=o.order)
    data = {**repeated(o.asked.from_, "video", "was made by longtake extend, which has a --from of its own"), **given}
    if "image" not in data:
        raise InputError("a start image is missing; --image FILE names one, `longtake demo` brings its own")
    return make_video(read_request(data), o.output, o.asked)
