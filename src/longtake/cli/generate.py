"""`longtake generate`: a video from a start image and a prompt."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from longtake.errors import InputError, StoryboardError
from longtake.plan import Storyboard, read_storyboard

if TYPE_CHECKING:
    from longtake.pipeline import Preflight

__all__ = ["FIELDS", "Options", "columns", "make_video", "read_board", "repeated", "report", "run"]


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
    run_dir: Path | None = None
    """The folder of the run; default: OUTPUT without its ending, plus .run"""
    model: str | None = None
    """A model's name or folder."""
    order: str | None = None
    """vanilla (forward, streams), inverted (from the end to the start image), anti_drifting (the ending second) or
    planned (endpoints first; planned:9,3 says how many sections apart, coarse to fine)."""
    schedule: str | None = None
    """What each section sees, such as important-start; see longtake show."""
    gaps: Literal["true", "clamped"] | None = None
    """Whether RoPE sees true distances or those that the model was trained with."""
    codebook: str | None = None
    """Discretized history (+D): round it to so many words, such as 128, or by kernel, such as k1=1024,k4=64."""
    discretize_images: bool = False
    """With +D: round the start image, too."""
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
    """A video made by longtake: its request is repeated, with what is given here changed."""
    dry_run: bool = False
    """Check everything, say what would be made, make nothing."""
    json: bool = False
    """Lines of JSON on stdout instead of a progress bar."""


FIELDS = (
    "seconds", "model", "order", "schedule", "gaps", "codebook", "importance", "importance_time",
    "importance_estimate", "importance_compare", "history_sigma",
    "history_guidance", "history_without", "solver", "guidance", "negative_prompt", "seed", "height", "width",
    "scale", "crf",
)  # fmt: skip


def run(options: Options) -> int:
    """Makes the video."""
    given = {name: getattr(options, name) for name in FIELDS if getattr(options, name) is not None}
    if options.num_inference_steps is not None:
        given["steps"] = options.num_inference_steps
    if options.discretize_images:
        given["discretize_images"] = True
    board = read_board(options.storyboard).joined(options.prompt or "", options.image)
    if board.timed or options.storyboard:
        given["storyboard"] = replace(board, prompt="", image=None)
    if board.prompt or options.prompt is not None:
        given["prompt"] = board.prompt
    if board.image:
        given["image"] = board.image
    given = {**repeated(options.from_), **given}
    if "video" in given:
        raise InputError(f"{options.from_} was made by longtake extend, which has a --from of its own")
    if "image" not in given:
        raise InputError("a start image is missing; --image FILE names one, `longtake demo` brings its own")
    return make_video(given, options.output, options.run_dir, options.device, options.dry_run, options.json)


def make_video(
    data: dict[str, Any], output: Path, folder: Path | None, device: str, dry_run: bool, as_json: bool
) -> int:
    """Checks and makes the video of loose request data."""
    from longtake.cli.progress import follow
    from longtake.cli.script import say_snaps
    from longtake.pipeline import find_device, generate, preflight
    from longtake.pipeline.request import read_request

    request = read_request(data)
    folder = folder or output.parent / f"{output.stem}.run"
    find_device(device)
    if dry_run:
        report(preflight(request, output, folder), request.storyboard.timed, as_json)
        return 0
    if request.storyboard.timed:
        for line in say_snaps(preflight(request, output, folder).script, columns()):
            print(line, file=sys.stderr)
    return follow(generate(request, output, folder, device=device), folder, as_json)


def read_board(path: Path | None) -> Storyboard:
    """The storyboard in a file; one that says nothing where there is no file."""
    if path is None:
        return Storyboard()
    try:
        return read_storyboard(path.read_text(encoding="utf-8-sig"), path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a storyboard that can be read ({error})") from error
    except StoryboardError as error:
        raise StoryboardError(f"{path}\n{error}") from error


def columns() -> int:
    """The width of the terminal; where there is none, that of a wide one."""
    return shutil.get_terminal_size(fallback=(120, 24)).columns


def repeated(video: Path | None) -> dict[str, Any]:
    """The request in a video's metadata; nothing where there is no video."""
    if video is None:
        return {}
    from longtake.media import read_comment

    try:
        request = json.loads(read_comment(video))
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise InputError(f"{video}: no request of longtake is in its metadata")
    return request


def report(checked: Preflight, timed: bool, as_json: bool) -> None:
    """Prints what a request comes to."""
    from longtake.cli.script import draw_script, script_data

    config = checked.config
    if as_json:
        print(json.dumps({"sections": checked.sections, "images": checked.images, "seconds": checked.seconds,
                          "section_tokens": checked.section_tokens, "context_tokens": checked.context_tokens,
                          "disk_bytes": checked.disk_bytes, "script": script_data(checked),
                          "config": config.model_dump(mode="json")}))  # fmt: skip
        return
    print(
        f"{checked.sections} sections, {checked.images} images of {config.width} x {config.height}, "
        f"{checked.seconds:.2f} s at {config.fps:g} images/s"
    )
    print(
        f"order {config.order}, schedule {config.schedule}, {config.steps} steps ({config.solver}), "
        f"guidance {config.guidance:g}, seed {config.seed}"
    )
    if config.codebook:
        words = ", ".join(f"{size} for {kernel}" for kernel, size in config.codebook.items())
        print(f"discretized history, words: {words.replace(' for *', '')}")
    print(
        f"{checked.section_tokens} tokens a section, at most {checked.context_tokens} of context; "
        f"about {checked.disk_bytes / 2**20:.1f} MiB of disk"
    )
    if timed:
        print(draw_script(checked, columns()))
