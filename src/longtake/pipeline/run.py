"""A run is a folder. What is in it is finished; what is not finished is not in it.

request.json                 as asked
config.json                  as resolved
manifest.json                the files of the model and of LoRAs when it began, with sizes and digests
output.json                  where the finished video goes, if it is not beside the folder under its name
start.png                    the start image as the model sees it
start.safetensors            its latents, as frame 0
anchor.safetensors           its latents alone, where sections see it apart from frame 0
keys/0019.png                the key image that is given as frame 19, as the model sees it
keys/0019.safetensors        its latents
sections/0003.safetensors    latents of the section made as the fourth (float32), its frames and seed
segments/0007.mp4            images of the eighth section in time, encoded once
meters/0007.json             their drift and motion; it is written before them and counts when they are there
source/0002.mp4              images of the video that is made longer, 64 in each file, as the model sees them
source.safetensors           its latents; then start.png is its first image that is encoded
last.png                     its last image
video.mp4                    the video as far as it is, growing
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from pydantic import BaseModel, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from longtake.backbones.parts import Manifest
from longtake.errors import OutputError, RunError
from longtake.media import Segment, append_segment, join_segments, save_image, whole, write_segment
from longtake.pipeline.meter import Meter
from longtake.pipeline.request import Config, Extension, Request, retold
from longtake.plan import ANCHOR, Section, Told, place_of
from longtake.schedule import parse

__all__ = ["SHOT", "Run", "check_new", "frames_of", "source_segments", "write_latents"]

METERS = TypeAdapter(Meter)
MANIFESTS = TypeAdapter(Manifest)
REQUESTS = TypeAdapter[Request | Extension](Request | Extension)
SHOT = 64  # images of a source in one file


class Run:
    """One video on its way."""

    def __init__(self, folder: Path, request: Request | Extension, config: Config) -> None:
        self.folder, self.request, self.config = folder, request, config
        self.video = folder / "video.mp4"
        self._shown = range(0)  # the pieces that this object has put into the growing video
        self.generated = parse(config.schedule).generated
        self.sections = -(-(config.frames - config.first) // self.generated)

    @classmethod
    def create(
        cls,
        folder: Path,
        request: Request | Extension,
        config: Config,
        image: np.ndarray,
        output: Path | None = None,
        keys: Mapping[int, np.ndarray] = MappingProxyType({}),
        manifest: Manifest | None = None,
    ) -> Run:
        """A new run in a folder that does not exist yet or is empty; its video goes to `output`, or beside the folder.

        `image` is the start image, `keys` are the key images by their frames, all as the model sees them;
        `manifest` says what they are made into a video with.

        Raises:
            OutputError: the folder cannot be written; it is as it was then.
            RunError: there is a run in it already, or something else.
        """
        check_new(folder)
        begun = folder.exists()
        try:
            (folder / "sections").mkdir(parents=True, exist_ok=True)
            (folder / "segments").mkdir(exist_ok=True)
            save_image(image, folder / "start.png")
            run = cls(folder, request, config)
            for frame, key in keys.items():
                path = run.key_path(frame).with_suffix(".png")
                path.parent.mkdir(exist_ok=True)
                save_image(key, path)
            if output and output.resolve() != _beside(folder):
                _write_json(folder / "output.json", _Output(run=folder.resolve(), video=output.resolve()))
            if manifest:
                _write_json(run.manifest_path, manifest)
            _write_json(folder / "request.json", request)
            _write_json(folder / "config.json", config)  # last: a folder with a config is a whole run
        except (OSError, OutputError) as error:
            if not begun:
                shutil.rmtree(folder, ignore_errors=True)
            raise OutputError(f"{folder}: the run cannot be written ({error})") from error
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in a folder.

        Raises:
            RunError: there is none, or its files cannot be read.
        """
        if not (folder / "config.json").is_file():
            raise RunError(f"{folder}: there is no run here (no config.json)")
        try:
            request = REQUESTS.validate_json((folder / "request.json").read_text())
            config = Config.model_validate_json((folder / "config.json").read_text())
        except (OSError, ValidationError) as error:
            raise RunError(f"{folder}: the run's request or config cannot be read ({error})") from error
        return cls(folder, request, config)

    @property
    def output(self) -> Path:
        """Where the finished video goes: as was asked when the run began. That of a copied run goes beside the copy.

        Raises:
            RunError: the file that says so cannot be read.
        """
        path = self.folder / "output.json"
        if not path.exists():
            return _beside(self.folder)
        try:
            noted = _Output.model_validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise RunError(f"{path}: cannot be read ({error}); delete it to have the video beside the run") from error
        return noted.video if noted.run == self.folder.resolve() else _beside(self.folder)

    @property
    def manifest_path(self) -> Path:
        """Where it is said what the run began with."""
        return self.folder / "manifest.json"

    def read_manifest(self) -> Manifest | None:
        """What the run began with; nothing where that was not noted.

        Raises:
            RunError: the file cannot be read.
        """
        if not self.manifest_path.exists():
            return None
        try:
            return MANIFESTS.validate_json(self.manifest_path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(f"{self.manifest_path}: cannot be read ({error}); a run goes on without it") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the run is worked on; released by the system if the process dies.

        Raises:
            RunError: another process works on this run.
            OutputError: the folder cannot be written.
        """
        lock = FileLock(self.folder / "lock", thread_local=False)  # a generator may end in another thread
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{self.folder}: another process works on this run") from None
        except OSError as error:
            raise OutputError(f"{self.folder}: the run cannot be written ({error.strerror})") from error
        try:
            for leftover in [*self.folder.glob("*.unfinished"), *self.folder.glob("*/*.unfinished")]:
                leftover.unlink()
            yield
        finally:
            lock.release()

    def section_path(self, section: int) -> Path:
        """Where the latents of a section are."""
        return self.folder / "sections" / f"{section:04d}.safetensors"

    def has_section(self, section: int) -> bool:
        """True if the section made at this place in the order is finished."""
        return self.section_path(section).exists()

    def read_section(self, section: Section) -> Float[Tensor, "1 c t h w"]:
        """Latents of a finished section.

        Raises:
            RunError: the file cannot be read or is of other frames.
        """
        path = self.section_path(section.index)
        latents, note = _read_latents(path)
        if note.get("frames") != list(section.frames):
            raise RunError(f"{path}: these are frames {note.get('frames')}, not {list(section.frames)}")
        return latents

    def write_section(self, section: Section, latents: Float[Tensor, "1 c t h w"]) -> None:
        """Puts a finished section on disk, whole or not at all.

        Raises:
            OutputError: the disk is full; what was finished before stays.
        """
        note = {"frames": list(section.frames), "seed": self.config.seed_of(section)}
        write_latents(self.section_path(section.index), latents, note)

    def has_start(self) -> bool:
        """True if the latents of the start image are known, all that sections see of it."""
        names = {"stream": ("start",), "anchored": ("anchor", "start")}[self.config.manner]
        return all((self.folder / f"{name}.safetensors").exists() for name in names)

    def read_start(self) -> Float[Tensor, "1 c 1 h w"]:
        """Latents of the start image, or of a source's first.

        Raises:
            RunError: the file cannot be read.
        """
        if self.config.source:
            return self.read_source(range(1))
        return _read_latents(self.folder / "start.safetensors")[0]

    def write_start(self, latents: Float[Tensor, "1 c 1 h w"]) -> None:
        """Keeps the latents of the start image: it is encoded once."""
        write_latents(self.folder / "start.safetensors", latents, {"frames": [0]})

    def read_anchor(self) -> Float[Tensor, "1 c 1 h w"]:
        """Latents of the start image alone, where sections see it apart from frame 0.

        Raises:
            RunError: the file cannot be read.
        """
        return _read_latents(self.folder / "anchor.safetensors")[0]

    def write_anchored(self, anchor: Float[Tensor, "1 c 1 h w"], start: Float[Tensor, "1 c 1 h w"]) -> None:
        """Keeps both latents of the start image: alone, and as frame 0."""
        write_latents(self.folder / "anchor.safetensors", anchor, {"frames": [ANCHOR]})
        self.write_start(start)

    def read_source(self, frames: range) -> Float[Tensor, "1 c t h w"]:
        """Latents of frames of the source, by their numbers in it.

        Raises:
            RunError: the file cannot be read.
        """
        return _read_latents(self.folder / "source.safetensors", frames, "begin a new run from the video")[0]

    def key_path(self, frame: int) -> Path:
        """Where the latents of a key image are, by the frame that it is given as; the image is beside them."""
        return self.folder / "keys" / f"{frame:04d}.safetensors"

    def has_key(self, frame: int) -> bool:
        """True if the latents of that key image are known."""
        return self.key_path(frame).exists()

    def read_key(self, frame: int) -> Float[Tensor, "1 c 1 h w"]:
        """Latents of a key image.

        Raises:
            RunError: the file cannot be read.
        """
        return _read_latents(self.key_path(frame))[0]

    def write_key(self, frame: int, latents: Float[Tensor, "1 c 1 h w"]) -> None:
        """Keeps the latents of a key image: it is encoded once."""
        write_latents(self.key_path(frame), latents, {"frames": [frame]})

    def segment(self, place: int) -> Segment:
        """The segment of a section by its place in time; its file may not be there yet."""
        images = self.config.images_at(place)
        return Segment(self.folder / "segments" / f"{place:04d}.mp4", images.start, len(images))

    @cached_property
    def pieces(self) -> tuple[Segment, ...]:
        """All segments of the video in time order, those of a source with them; some may not be there yet."""
        made = tuple(self.segment(place) for place in range(self.sections))
        source = source_segments(self.folder, self.config)
        return tuple(sorted((*source, *made), key=lambda piece: piece.first))

    @property
    def shown(self) -> tuple[Segment, ...]:
        """The segments that are there and follow each other, from the earliest: what can be watched so far."""
        there = itertools.dropwhile(lambda piece: not piece.path.exists(), self.pieces)
        return tuple(itertools.takewhile(lambda piece: piece.path.exists(), there))

    def place_of(self, section: Section) -> int:
        """The place of a section in time, from 0."""
        return place_of(section.frames[0], self.config.first, self.generated)

    def has_segment(self, place: int) -> bool:
        """True if that section's images are encoded."""
        return self.segment(place).path.exists()

    def write_images(self, place: int, images: np.ndarray) -> None:
        """Encodes a section's images and lets the video grow by them."""
        segment = self.segment(place)
        c = self.config
        write_segment(images, segment.path, segment.first, c.fps, c.crf, c.scale)
        pieces, shown = self.pieces, self._shown
        if not (shown and shown.stop < len(pieces) and pieces[shown.stop] == segment):
            self.rebuild_video()
            return
        since = pieces[shown.start].first
        for piece in itertools.takewhile(lambda piece: piece.path.exists(), pieces[shown.stop :]):
            append_segment(self.video, piece, since)
            self._shown = range(shown.start, self._shown.stop + 1)

    def meter_path(self, place: int) -> Path:
        """Where the meter of a section is, by its place in time."""
        return self.folder / "meters" / f"{place:04d}.json"

    def read_meters(self) -> tuple[Meter, ...]:
        """The meters of the sections whose images are there, in time order.

        A run that was begun before sections were measured has none for those.

        Raises:
            RunError: a file cannot be read.
        """
        places = sorted(int(path.stem) for path in (self.folder / "meters").glob("*.json"))
        return tuple(_read_meter(self.meter_path(place)) for place in places if self.has_segment(place))

    def write_meter(self, meter: Meter) -> None:
        """Keeps the meter of a section, whole or not at all.

        Raises:
            OutputError: the disk is full; what was finished before stays.
        """
        path = self.meter_path(meter.place)
        with whole(path, "could not be written; what was finished before stays") as unfinished:
            unfinished.parent.mkdir(exist_ok=True)
            unfinished.write_bytes(METERS.dump_json(meter) + b"\n")

    def rebuild_video(self) -> None:
        """Writes the growing video anew from the segments that are there and follow each other."""
        pieces = self.pieces
        there = [number for number, piece in enumerate(pieces) if piece.path.exists()]
        contiguous = [number for i, number in enumerate(there) if number == there[0] + i]
        self._shown = range(there[0], there[0] + len(contiguous)) if there else range(0)
        if self._shown:
            join_segments(pieces[self._shown.start : self._shown.stop], self.video)
        else:
            self.video.unlink(missing_ok=True)

    def forget_from(self, section: int, seeds: dict[int, int]) -> Run:
        """The run without the sections made from `section` on; those are to be made with other seeds.

        Raises:
            RunError: there is no such section, or another process works on this run.
        """
        plan = self.config.plan()
        if not 0 <= section < len(plan.sections):
            raise RunError(f"section {section} does not exist: this run has sections 0 to {len(plan.sections) - 1}")
        kept = {made: seed for made, seed in self.config.seeds.items() if made < section}
        run = Run(self.folder, self.request, self.config.model_copy(update={"seeds": kept | seeds}))
        dropped = {plan.place_of(s) for s in plan.sections[section:]}
        with self.lock():
            # The config comes last: whoever stops between makes the old sections again, and loses nothing.
            for later in plan.sections[section:]:
                self.section_path(later.index).unlink(missing_ok=True)
            # A segment is decoded behind the frames before it, so the one after a dropped section changes too.
            for place in (dropped | {p + 1 for p in dropped}) & {*range(self.sections)}:
                self.segment(place).path.unlink(missing_ok=True)
                self.meter_path(place).unlink(missing_ok=True)
            _write_json(self.folder / "config.json", run.config)
            run.rebuild_video()
        return run

    def retell(self, prompts: Mapping[int, str], seeds: Mapping[int, int] = MappingProxyType({})) -> Run:
        """The run with other words, or other seeds, for sections that are not made yet, by their place in the order.

        Raises:
            RunError: there is no such section, or it is made already, or another process works on this run.
        """
        c, every = self.config, self.config.plan().sections
        told = list(c.told or [Told(c.prompt)] * self.sections)
        with self.lock():
            for index in {*prompts, *seeds}:
                if not 0 <= index < len(every):
                    raise RunError(f"section {index} does not exist: this run has sections 0 to {len(every) - 1}")
                section, place = every[index], self.place_of(every[index])
                before = told[place].prompt, c.seed_of(section)
                now = prompts.get(index, before[0]), seeds.get(index, before[1])
                if now != before and self.has_section(index):
                    raise RunError(f"section {index} is made already; make it again from there, or begin a branch")
                told[place] = replace(told[place], prompt=now[0])
            config = c.model_copy(update={"told": tuple(told), "seeds": c.seeds | dict(seeds)})
            run = Run(self.folder, retold(self.request, config), config)
            # The config comes last: it is what is followed.
            _write_json(self.folder / "request.json", run.request)
            _write_json(self.folder / "config.json", run.config)
        return run

    @staticmethod
    def free_bytes(folder: Path) -> int:
        """Room left where a folder is or would be."""
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free


def check_new(folder: Path) -> None:
    """Checks that a run can begin in a folder: it does not exist, is empty, or holds a run that never began.

    Raises:
        RunError: there is a run in it already, or something else.
    """
    if (folder / "config.json").exists():
        raise RunError(f"{folder} holds a run already: go on with `longtake resume {folder}`, or name another output")
    pictures, noted = {"start.png", "last.png", "source.safetensors"}, ("output", "manifest", "request", "config")
    begun = pictures | {f"{name}.json" for name in noted}
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    numbered = ("keys/*.png", "source/*.mp4", "source/*.mp4.unfinished")
    names = (p.name.removesuffix(".unfinished") for p in files if not any(map(p.match, numbered)))
    foreign = next((name for name in names if name not in begun), None)
    if foreign:
        raise RunError(f"{folder} holds other files, such as {foreign}; name a folder that is new or empty")


class _Output(BaseModel):
    """Where a run's video goes, as long as the run is where it began."""

    run: Path
    video: Path


def _beside(folder: Path) -> Path:
    folder = folder.resolve()
    return folder.with_name(folder.name.removesuffix(".run") + ".mp4")


def _write_json(path: Path, content: BaseModel | Manifest) -> None:
    with whole(path) as unfinished:
        unfinished.write_bytes(TypeAdapter(type(content)).dump_json(content, indent=2) + b"\n")


def _read_meter(path: Path) -> Meter:
    try:
        return METERS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete it and its segment to get both again") from error


def write_latents(path: Path, latents: Float[Tensor, "1 c t h w"], note: dict) -> None:
    """Writes latents with a note, whole or not at all.

    Raises:
        OutputError: the disk is full; what was finished before stays.
    """
    tensors = {"latents": latents.detach().float().cpu().contiguous()}
    with whole(path, "could not be written; what was finished before stays") as unfinished:
        unfinished.write_bytes(save(tensors, metadata={"longtake": json.dumps(note)}))


def _read_latents(
    path: Path, frames: range | None = None, remedy: str = "delete it to have it made again"
) -> tuple[Tensor, dict]:
    """The latents in a file, or those of some frames in a row; the others are not read then."""
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {})["longtake"])
            if frames is None:
                return file.get_tensor("latents"), note
            return file.get_slice("latents")[:, :, frames.start : frames.stop], note
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {remedy}") from error


def frames_of(run: Run, by_place: Mapping[int, Section], frames: range) -> Float[Tensor, "1 c t h w"]:
    """Latents of frames that follow each other and are finished, from disk; only the files that hold them are read."""
    first, parts = run.config.first, list[Tensor]()
    known, made = range(frames.start, min(first, frames.stop)), range(max(first, frames.start), frames.stop)
    if known:
        parts.append(run.read_source(known) if run.config.source else run.read_start())
    if made:
        begin, end = (place_of(frame, first, run.generated) for frame in (made[0], made[-1]))
        for place in range(begin, end + 1):
            section = by_place[place]
            own = section.frames[0]
            parts.append(run.read_section(section)[:, :, max(0, frames.start - own) : frames.stop - own])
    return torch.cat(parts, dim=2)


def source_segments(folder: Path, config: Config) -> tuple[Segment, ...]:
    """The segments of the video that is made longer, in time order; none if none is."""
    if config.source is None:
        return ()
    begin = {"after": 0, "before": config.made_images.stop}[config.source.side]
    every = range(begin, begin + config.source.images)
    shots = (every[at : at + SHOT] for at in range(0, len(every), SHOT))
    paths = (folder / "source" / f"{number:04d}.mp4" for number in itertools.count())
    return tuple(Segment(path, shot.start, len(shot)) for path, shot in zip(paths, shots, strict=False))
