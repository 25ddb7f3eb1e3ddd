"""`longtake extend VIDEO`: what comes after a video, or what was before it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from longtake.cli.generate import FIELDS, columns, read_board, repeated, report
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
    """The finished video, old and new in order; default: VIDEO without its ending, plus -after.mp4 or -before.mp4,
    here."""
    run_dir: Path | None = None
    """The folder of the run; default: OUTPUT without its ending, plus .run"""
    model: str | None = None
    """A model's name or folder."""
    order: str | None = None
    """Default: vanilla (forward) for what comes after, inverted (backward) for what was before; or planned,
    anti_drifting, which begin with endpoints."""
    schedule: str | None = None
    """What each section sees, such as important-start; see longtake show."""
    gaps: Literal["true", "clamped"] | None = None
    """Whether RoPE sees true distances or those that the model was trained with."""
    codebook: str | None = None
    """Discretized history (+D): round it to so many words, such as 128, or by kernel, such as k1=1024,k4=64."""
    discretize_images: bool = False
    """With +D: round the video's own frames, too."""
    importance: Literal["time", "similarity", "hybrid"] | None = None
    """By what known frames are ranked for the finest kernels: nearness in time, likeness to what comes, or both."""
    importance_time: float | None = None
    """With hybrid: what nearness in time counts beside likeness."""
    importance_estimate: Literal["nearest", "first_step"] | None = None
    """What stands for what comes next: the nearest known frame, or the model's own first step (one pass more)."""
    importance_compare: Literal["first", "best", "mean"] | None = None
    """Which of its frames count when a known frame is compared with it."""
    history_sigma: float | None = None
    """Noise mixed into made frames before they are seen: less is remembered, errors too."""
    history_guidance: float | None = None
    """How far to lead away from what would come without history; 1 is none and half the work."""
    history_without: float | Literal["drop"] | None = None
    """What stands for no history: a level of noise up to 1, or drop, which is zeros."""
    num_inference_steps: Annotated[int | None, tyro.conf.arg(aliases=["--steps"])] = None
    """Steps of each section."""
    solver: Literal["euler", "unipc"] | None = None
    """How noise becomes a sample."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is none and half the work."""
    negative_prompt: str | None = None
    """What guidance leads away from."""
    seed: int | None = None
    """Another seed, another video."""
    height: int | None = None
    """Pixels, a multiple of the model's grid."""
    width: int | None = None
    """Pixels, a multiple of the model's grid."""
    scale: int | None = None
    """Pixels of the file for each pixel made."""
    crf: int | None = None
    """Quality of the file: 0 lossless, 16 very good, 28 small."""
    device: str = "auto"
    """cpu, cuda, ... or auto: a GPU where there is one."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A video made by longtake extend: its request is repeated, with what is given here changed."""
    dry_run: bool = False
    """Check everything, say what would be made, make nothing."""
    json: bool = False
    """Lines of JSON on stdout instead of a progress bar."""


def run(options: Options) -> int:
    """Makes the video longer."""
    from longtake.cli.progress import follow
    from longtake.cli.script import say_snaps
    from longtake.pipeline import extend, find_device, preflight
    from longtake.pipeline.request import read_extension
    from longtake.pipeline.source import told_of

    given = {name: getattr(options, name) for name in (*FIELDS, "side") if getattr(options, name) is not None}
    if options.num_inference_steps is not None:
        given["steps"] = options.num_inference_steps
    if options.discretize_images:
        given["discretize_images"] = True
    board = read_board(options.storyboard).joined(options.prompt or "", None)
    if board.timed or options.storyboard:
        given["storyboard"] = replace(board, prompt="")
    if board.prompt or options.prompt is not None:
        given["prompt"] = board.prompt
    if options.video:
        given["video"] = options.video
    given = {**repeated(options.from_), **given}
    if "image" in given:
        raise InputError(f"{options.from_} was made from a start image; longtake generate repeats that")
    if "video" not in given:
        raise InputError("a video is missing; longtake extend VIDEO names one, `longtake demo` makes one")
    request = read_extension(given)
    output = options.output or Path(f"{request.video.stem}-{request.side}.mp4")
    folder = options.run_dir or output.parent / f"{output.stem}.run"
    find_device(options.device)
    checked = preflight(request, output, folder)
    assert checked.film
    for line in told_of(checked.film, checked.config):
        print(line, file=sys.stderr)
    if options.dry_run:
        report(checked, request.storyboard.timed, options.json)
        return 0
    if request.storyboard.timed:
        for line in say_snaps(checked.script, columns()):
            print(line, file=sys.stderr)
    return follow(extend(request, output, folder, device=options.device, checked=checked), folder, options.json)
