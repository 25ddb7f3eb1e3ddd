"""One job, from its lease to its end: the engine's events become files and messages.

A file that the server has is not made again, so what a killed worker leaves behind is where the next one begins:

    planned         request, manifest, pictures, a source; config.json is the last one, since a folder with it is a run:
                    a job that is refused before, such as one that the machine has no room for, has none
    first step      latents of start and key images: they are encoded once
    section done    its latents, then images and meters of what could be decoded, then the event
    finished        output.mp4, then the end of the lease
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import psutil
import torch

from longtake.backbones.running import Runtime
from longtake.errors import HardwareError, InputError, LongtakeError, ModelError, NumericsError, OutputError
from longtake.media import load_image, write_video
from longtake.pipeline.events import Event, Finished, Planned, SectionDone, Step
from longtake.pipeline.generate import begin, codec_of, comment_of, make
from longtake.pipeline.preflight import find_device, preflight
from longtake.pipeline.preview import Glance, fit_glance, sheet_of
from longtake.pipeline.request import Extension, Request, read_extension, read_request
from longtake.pipeline.run import Run
from longtake.pipeline.shelf import Shelf
from longtake.web.planning import plan_of
from longtake.web.sending import Overrides, Post

__all__ = ["Ended", "Failure", "failure_of", "work"]

GLANCES = 1.0  # seconds between previews, at least
BEGUN = ("request.json", "manifest.json", "start.png", "keys/*.png", "source/*.mp4", "source.safetensors", "last.png",
         "config.json")  # fmt: skip
ENCODED = ("anchor.safetensors", "start.safetensors", "keys/*.safetensors")
MADE = ("segments/*.mp4", "meters/*.json")
CHANGING = ("request.json", "config.json")  # while a run is made; all other files are written once
INPUTS, OUTPUT = "inputs/", "output.mp4"
FOLDERS = re.compile(r"(?<![\w.~-])~?/(?:[^\s/:'\"]+/)+")
ADVICE = re.compile(r"^.*longtake (?:resume|generate|show)\b.*$\n?", re.MULTILINE)  # for the command line
CODES = {
    InputError: "invalid_request",
    HardwareError: "hardware",
    ModelError: "model",
    NumericsError: "numerics",
    OutputError: "output",
}

R = TypeVar("R", bound=Request | Extension)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, for its owner."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job left this worker, as the server is told."""

    status: str  # completed, paused, cancelled or returned
    peak_memory_mb: int


def failure_of(error: BaseException) -> Failure:
    """What an error says without the command line's advice and without folders of this machine.

    >>> failure_of(InputError("/home/eva/a.png: there is no such image"))
    Failure(code='invalid_request', message='a.png: there is no such image', param=None)
    >>> failure_of(MemoryError()).message
    'there was not enough memory; a smaller size, or a schedule that makes fewer frames at once, needs less'
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        remedy = "a smaller size, or a schedule that makes fewer frames at once, needs less"
        return Failure("out_of_memory", f"there was not enough memory; {remedy}")
    if isinstance(error, LongtakeError):
        code = next((code for kind, code in CODES.items() if isinstance(error, kind)), "invalid_request")
        return Failure(code, FOLDERS.sub("", ADVICE.sub("", str(error))).strip())
    return Failure("internal", f"the worker failed with {type(error).__name__}; its log says where")


def work(post: Post, folder: Path, shelf: Shelf, runtime: Runtime, leaving: Callable[[], bool]) -> Ended:
    """Makes the video of a lease in a new folder, as far as server and user want it.

    Raises:
        LostLeaseError: the job is not ours any more.
        LongtakeError: it cannot be made, or the server cannot use what was sent.
    """
    return _Job(post, folder, shelf, runtime, leaving).run()


class _Job:
    """What one job needs to be known of while it is made."""

    def __init__(self, post: Post, folder: Path, shelf: Shelf, runtime: Runtime, leaving: Callable[[], bool]) -> None:
        self.post, self.shelf, self.runtime, self.leaving = post, shelf, runtime, leaving
        self.home, self.inputs, self.output = folder / "run", folder / "inputs", folder / "run.mp4"
        self.revision = post.standing.revision
        self.glance: Glance | None = None
        self.glanced = 0.0
        self.given = frozenset(post.known)  # what was made before this lease
        self.steps, self.began = 0, time.monotonic()

    def run(self) -> Ended:
        """Until nothing is left to do or somebody stops it."""
        if "config.json" not in self.given:  # of an attempt that never became a run nothing counts
            self.post.known = {name: digest for name, digest in self.post.known.items() if name.startswith(INPUTS)}
        for name in self.post.known:
            if name != OUTPUT:
                self.post.fetch(name, self._local(name))
        run = self._begun()
        while True:
            status = self._follow(run)
            if status != "retold":
                break
            run = self._retold(Run.open(self.home), Overrides(prompts=self.post.standing.prompts))
        if status == "completed":
            self.post.put(OUTPUT, self.output)
        self.post.flush()
        return Ended(status, peak_memory())

    def _local(self, name: str) -> Path:
        """Where a file of the server lies here; what a request names lies beside the run."""
        if not re.fullmatch(r"(?:[\w-]+/)?[\w-][\w.-]*", name, re.ASCII):
            raise InputError(f"{name!r} is not the name of a file of a run")
        return self.inputs / Path(name).name if name.startswith(INPUTS) else self.home / name

    def _begun(self) -> Run:
        """The run: the server's, or a new one."""
        if "config.json" in self.given:
            for folder in ("sections", "segments"):
                (self.home / folder).mkdir(exist_ok=True)  # an empty one has no file that would bring it
            run = Run.open(self.home)
        else:
            run = self._new()
        return self._retold(run, self.post.lease.overrides)

    def _new(self) -> Run:
        """Checks the request and begins a run whose request names files, but no folders of this machine."""
        lease = self.post.lease
        asked = read_request(lease.request) if lease.kind == "generate" else read_extension(lease.request)
        wanted = renamed(asked, self._input)
        noted = unplaced(renamed(asked, lambda path: Path(path.name)), lease.video["model"])
        device = find_device(self.runtime.device)
        checked = preflight(wanted, self.output, self.home)
        return begin(wanted, self.output, self.home, checked, lambda: codec_of(checked.config, device), noted)

    def _input(self, path: Path) -> Path:
        return self._local(f"inputs/{path.name}")

    def _retold(self, run: Run, overrides: Overrides) -> Run:
        """The run with what was changed of sections that are not made; what is made stays as it is."""
        prompts, seeds = dict(overrides.prompts), dict(overrides.seeds)
        config = run.config
        for section in config.plan().sections:
            known = run.has_section(section.index)
            if known or prompts.get(section.index) == config.prompt_of(section):
                prompts.pop(section.index, None)
            if known or seeds.get(section.index) == config.seed_of(section):
                seeds.pop(section.index, None)
        return run.retell(prompts, seeds) if prompts or seeds else run

    def _put(self, patterns: tuple[str, ...]) -> bool:
        """Sends the files that the server lacks, in this order. True if there was one."""
        found = [path for pattern in patterns for path in sorted(self.home.glob(pattern))]
        names = [path.relative_to(self.home).as_posix() for path in found]
        lacking = [name for name in names if name in CHANGING or name not in self.post.known]
        sent = [self.post.put(name, self.home / name) for name in lacking]
        return any(sent)

    def _follow(self, run: Run) -> str:
        """Makes what the run lacks; says how that ended."""
        made = cast(Generator[Event, None, None], make(run, self.output, self.shelf, self.runtime))
        with closing(made) as events:
            for event in events:
                self.post.check()
                self._say(run, event)
                status = self._stopped(run, event)
                if status:
                    return status
        return "completed"

    def _stopped(self, run: Run, event: Event) -> str:
        """How the work ends after this event; empty if it goes on."""
        standing = self.post.standing
        if self.leaving():
            return "returned"
        if standing.order in ("pause", "cancel"):
            return {"pause": "paused", "cancel": "cancelled"}[standing.order]
        if standing.order == "stop" and isinstance(event, SectionDone) and event.images:
            shown = run.shown
            write_video([replace(piece, first=piece.first - shown[0].first) for piece in shown],
                        self.output, comment_of(run))  # fmt: skip
            return "completed"
        if standing.revision != self.revision and isinstance(event, Step | SectionDone | Planned):
            concerned = isinstance(event, Step) and self._concerns(run, event)
            if concerned or not isinstance(event, Step):
                self.revision = standing.revision
                return "retold"
        return ""

    def _concerns(self, run: Run, step: Step) -> bool:
        prompt = self.post.standing.prompts.get(step.section.index)
        return prompt is not None and prompt != run.config.prompt_of(step.section)

    def _say(self, run: Run, event: Event) -> None:
        match event:
            case Planned():
                self.steps, self.began = 0, time.monotonic()
                self._put(BEGUN)
                self.post.tell({"type": "planned", "plan": plan_of(run.config), "unread": list(event.unread),
                                "remarks": list(event.remarks), "finished": event.finished,
                                "meters": [asdict(meter) for meter in event.meters]})  # fmt: skip
            case Step():
                self._step(run, event)
            case SectionDone():
                self._section(run, event)
            case Finished():
                pass

    def _step(self, run: Run, event: Step) -> None:
        if not self.steps:
            self._put(ENCODED)
        self.steps += 1
        c = run.config
        where = {"section": event.section.index, "place": run.place_of(event.section), "step": event.step}
        left = sum(not run.has_section(index) for index in range(run.sections)) * c.steps - event.step
        each = (time.monotonic() - self.began) / self.steps
        self.post.show({"type": "step", **where, "steps": c.steps, "eta_seconds": round(each * left, 1)})
        now = time.monotonic()
        if now - self.glanced >= GLANCES and event.step < c.steps:
            self.glanced = now
            if self.glance is None:
                self.glance = fit_glance(load_image(self.home / "start.png"), run.read_start())
            self.post.show({"type": "preview", **where, "image": sheet_of(self.glance.of(event.clean))})

    def _section(self, run: Run, event: SectionDone) -> None:
        latents = f"sections/{event.section.index:04d}.safetensors"
        new = [self._put((latents,)), self._put(MADE)]
        if not any(new):
            return  # it was there before, and so were its images
        self.post.tell({
            "type": "section",
            "section": event.section.index,
            "place": run.place_of(event.section),
            "images_done": event.images,
            "seconds": round(event.seconds, 3),
            "meter": [asdict(meter) for meter in event.meters],
            "ready": [place for place in range(run.sections) if run.has_segment(place)],
        })  # fmt: skip


def renamed(request: R, name: Callable[[Path], Path]) -> R:
    """A request whose images and videos have other names."""
    cues = tuple(replace(cue, image=cue.image and name(cue.image)) for cue in request.storyboard.cues)
    changes: dict[str, Any] = {"storyboard": replace(request.storyboard, cues=cues)}
    changes |= {"image": name(request.image)} if isinstance(request, Request) else {"video": name(request.video)}
    return request.model_copy(update=changes)


def unplaced(request: R, model: str) -> R:
    """A request that says no folder of its model, either, but what the server calls it."""
    parts = {part: Path(path.name) for part, path in request.parts.items()}
    loras = tuple(lora.model_copy(update={"file": Path(lora.file.name)}) for lora in request.loras)
    return request.model_copy(update={"model": model, "parts": parts, "loras": loras})


def peak_memory() -> int:
    """The most memory that was used so far, in MB: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset >> 20
    import resource  # which is not there

    unit = 20 if sys.platform == "darwin" else 10  # getrusage counts bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> unit
