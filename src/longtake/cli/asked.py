"""What the commands that make a video ask alike, and the way from what was asked to the video."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from longtake.cli.machine import Machine
from longtake.cli.several import Several
from longtake.errors import InputError, StoryboardError
from longtake.plan import Storyboard, read_storyboard

if TYPE_CHECKING:
    from longtake.pipeline import Company, Extension, Preflight, Request
    from longtake.pipeline.needs import Need

__all__ = ["Asked", "data_of", "make_video", "repeated"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of every command that makes a video from what the user has; None is the model's own choice."""

    run_dir: Path | None = None
    """The folder of the run; default: OUTPUT without its ending, plus .run"""
    model: str | None = None
    """A model's name or folder."""
    schedule: str | None = None
    """What each section sees, such as important-start; see longtake show."""
    gaps: Literal["true", "clamped", "near"] | None = None
    """Whether RoPE sees true distances or those that the model was trained with."""
    codebook: str | None = None
    """Discretized history (+D): round it to so many words, such as 128, or by kernel, such as k1=1024,k4=64."""
    discretize_images: bool = False
    """With +D: round the user's own images, too."""
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
    solver: Literal["euler", "unipc", "unipc_flow", "dmd"] | None = None
    """How noise becomes a sample."""
    guidance: Annotated[float | None, tyro.conf.arg(aliases=["--true-cfg-scale"])] = None
    """Classifier-free guidance; 1 is none and half the work."""
    distilled_guidance: Annotated[float | None, tyro.conf.arg(aliases=["--guidance-scale"])] = None
    """What networks that were distilled for it obey; FramePack: 10 if nothing is said."""
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
    part: Several = ()
    """NAME=PATH: a part of the model that is elsewhere, such as transformer=model.safetensors."""
    lora: Several = ()
    """FILE[:WEIGHT][@high|@low]; several add up. high and low are Wan 2.2 A14B's two networks; without, both."""
    storage: (
        Literal["full", "fp8", "int8", "nf4", "int8:torchao", "fp8:torchao", "int8:bitsandbytes", "nf4:bitsandbytes"]
        | None
    ) = None
    """What the network's matrices are kept in, and by which package: less memory, and not quite the same video."""
    fp8: bool = False
    """Compute in eight bits on a GPU that can (Ada, Hopper and later): faster, and not quite the same video."""
    compat: Literal["longtake", "official"] | None = None
    """official: FramePack's own program's choices, bit by bit as far as they matter, to compare with it."""
    posterior: Literal["mean", "sample"] | None = None
    """Of the start image's latents: their mean, or a draw that belongs to the seed."""
    draft: bool = False
    """Skip steps that change little: half the time, details differ."""
    cache: Literal["none", "teacache", "first_block", "magcache", "taylorseer"] | None = None
    """Which steps are skipped, if not by what --draft chooses."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A video made by the same command: its request is repeated, with what is given here changed."""
    dry_run: bool = False
    """Check everything, say what would be made, make nothing."""
    json: bool = False
    """Lines of JSON on stdout instead of a progress bar."""


OTHERWISE = {"num_inference_steps": "steps", "part": "parts", "lora": "loras"}  # what a request calls them


def data_of(
    asked: Asked, prompt: str | None, storyboard: Path | None, image: Path | None, **own: Any
) -> dict[str, Any]:
    """What was asked as loose request data; `own` are options that only some commands have."""
    from longtake.pipeline.request import Request

    said = {OTHERWISE.get(f.name, f.name): getattr(asked, f.name) for f in fields(asked) if _is_said(asked, f)}
    said |= {name: sum(said[name], ()) for name in ("parts", "loras") if name in said}
    given = {name: value for name, value in said.items() if name in Request.model_fields}
    given |= {name: value for name, value in own.items() if value is not None}
    if asked.draft:
        given.setdefault("cache", "draft")
    board = _read_board(storyboard).joined(prompt or "", image)
    if board.timed or storyboard:
        given["storyboard"] = replace(board, prompt="", image=None)
    if board.prompt or prompt is not None:
        given["prompt"] = board.prompt
    if board.image:
        given["image"] = board.image
    return given


def _is_said(asked: Asked, option: Field[Any]) -> bool:
    return getattr(asked, option.name) != option.default


def make_video(request: Request | Extension, output: Path, asked: Asked) -> int:
    """Checks what is asked, says what the user should know of it, and makes the video.

    Of the processes that torchrun started the first one does; the others compute along.
    """
    from longtake.pipeline import Company, find_device

    find_device(asked.machine.device)
    with Company.join(asked.machine.device) as company:
        if company.leads:
            return _make(request, output, asked, company)
        company.follow()
    return 0


def _make(request: Request | Extension, output: Path, asked: Asked, company: Company) -> int:
    from longtake.cli.progress import follow
    from longtake.cli.script import say_snaps
    from longtake.pipeline import Request, extend, find_device, generate, preflight
    from longtake.pipeline.machine import probe_machine
    from longtake.pipeline.needs import check_hardware
    from longtake.pipeline.source import told_of

    folder = asked.run_dir or output.parent / f"{output.stem}.run"
    checked = preflight(request, output, folder)
    if checked.film:
        for line in told_of(checked.film, checked.config):
            print(line, file=sys.stderr)
    if asked.dry_run:
        config, machine = checked.config, probe_machine(find_device(company.device), output.parent)
        need = check_hardware(config.model, config, asked.machine.profile, machine, asked.machine.attention)
        _report(checked, need, request.storyboard.timed, asked.json)
        return 0
    if request.storyboard.timed:
        for line in say_snaps(checked.script, _columns()):
            print(line, file=sys.stderr)
    runtime = asked.machine.runtime(company.device)
    if isinstance(request, Request):
        events = generate(request, output, folder, runtime=runtime, checked=checked, company=company)
    else:
        events = extend(request, output, folder, runtime=runtime, checked=checked, company=company)
    return follow(events, folder, asked.json)


def _read_board(path: Path | None) -> Storyboard:
    """The storyboard in a file; one that says nothing where there is no file."""
    if path is None:
        return Storyboard()
    try:
        return read_storyboard(path.read_text(encoding="utf-8-sig"), path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a storyboard that can be read ({error})") from error
    except StoryboardError as error:
        raise StoryboardError(f"{path}\n{error}") from error


def _columns() -> int:
    """The width of the terminal; where there is none, that of a wide one."""
    return shutil.get_terminal_size(fallback=(120, 24)).columns


def repeated(video: Path | None, foreign: str, says: str) -> dict[str, Any]:
    """The request in a video's metadata; nothing where there is no video.

    Raises:
        InputError: there is none, or it has a `foreign` key: that is another command's, which `says` names.
    """
    if video is None:
        return {}
    from longtake.media import read_comment

    try:
        request = json.loads(read_comment(video))
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise InputError(f"{video}: no request of longtake is in its metadata")
    if foreign in request:
        raise InputError(f"{video} {says}")
    return request


def _report(checked: Preflight, need: Need, timed: bool, as_json: bool) -> None:
    """Prints what a request comes to, and what it needs of this machine."""
    from longtake.cli.script import draw_script, script_data

    config = checked.config
    if as_json:
        print(json.dumps({"sections": checked.sections, "images": checked.images, "seconds": checked.seconds,
                          "section_tokens": checked.section_tokens, "context_tokens": checked.context_tokens,
                          "disk_bytes": checked.disk_bytes, "profile": need.name, "device_bytes": need.device,
                          "host_bytes": need.host, "script": script_data(checked),
                          "loras": [asdict(report) for report in checked.loras],
                          "config": json.loads(config.model_dump_json())}))  # fmt: skip
        return
    count = "1 section" if checked.sections == 1 else f"{checked.sections} sections"
    print(
        f"{count}, {checked.images} images of {config.width} x {config.height}, "
        f"{checked.seconds:.2f} s at {config.fps:g} images/s"
    )
    first = config.steps_of(config.plan().sections[0])
    more = f", {first} of the first section" if first != config.steps else ""
    print(
        f"order {config.order}, schedule {config.schedule}, {config.steps} steps{more} ({config.solver}), "
        f"guidance {config.guidance:g}, seed {config.seed}"
    )
    if config.besides:
        print(f"with {', '.join(config.besides)}")
    if config.codebook:
        words = ", ".join(f"{size} for {kernel}" for kernel, size in config.codebook.items())
        print(f"discretized history, words: {words.replace(' for *', '')}")
    print(
        f"{checked.section_tokens} tokens a section, at most {checked.context_tokens} of context; "
        f"about {checked.disk_bytes / 2**20:.1f} MiB of disk"
    )
    print(
        f"placed as {need.name}: about {need.device / 2**30:.1f} GiB of the device, {need.host / 2**30:.1f} of the host"
    )
    for report in checked.loras:
        print(report)
    if timed:
        print(draw_script(checked, _columns()))
