"""`longtake extend VIDEO`: what comes after a video, or what was before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from longtake.cli.asked import Asked, data_of, make_video, repeated
from longtake.errors import InputError

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Makes a video longer, with all of it as history.

    Its own images stay as they are, at the model's size and images a second. What is left out is the model's own
    choice. Every finished section is kept in the run folder, and `longtake resume` goes on from there; the video is
    in it, too, and may go elsewhere then.
    """

    video: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")] = None
    """The video, of any size and any number of images a second; as long as a section at least."""
    side: Literal["after", "before"] | None = None
    """What is made: what comes after the video, or what was before it; default: after."""
    seconds: float | None = None
    """How much longer it gets, to the nearest whole section."""
    prompt: str | None = None
    """What happens in what is made; it may say when, from its own beginning: [0s: the camera orbits left] [3s: ...]."""
    storyboard: Path | None = None
    """What happens when: prompts, seeds and guidance over time, in a text file or JSON; no images."""
    output: Path | None = None
    """The finished video, old and new in order; default: VIDEO-after.mp4 or VIDEO-before.mp4, here."""
    order: str | None = None
    """vanilla (default after), inverted (default before), planned or anti_drifting: endpoints first."""
    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(default_factory=Asked)


def run(options: Options) -> int:
    """Makes the video longer."""
    from longtake.pipeline.request import read_extension

    o = options
    own = {"seconds": o.seconds, "order": o.order, "side": o.side, "video": o.video}
    given = data_of(o.asked, o.prompt, o.storyboard, None, **own)
    data = {**repeated(o.asked.from_, "image", "was made from a start image; longtake generate repeats that"), **given}
    if "video" not in data:
        raise InputError("a video is missing; longtake extend VIDEO names one, `longtake demo` makes one")
    request = read_extension(data)
    return make_video(request, o.output or Path(f"{request.video.stem}-{request.side}.mp4"), o.asked)
