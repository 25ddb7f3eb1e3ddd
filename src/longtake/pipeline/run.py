"""A run is a folder. What is in it is finished; what is not finished is not in it.

request.json                 as asked
config.json                  as resolved
start.png                    the start image as the model sees it
start.safetensors            its latents
sections/0003.safetensors    latents of the section made as the fourth (float32), its frames and seed
segments/0007.mp4            images of the eighth section in time, encoded once
video.mp4                    the video as far as it is, growing
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longtake.errors import OutputError, RunError
from longtake.media import Segment, append_segment, join_segments, save_image, write_segment
from longtake.pipeline.request import Config, Request
from longtake.plan import Section

__all__ = ["Run"]


class Run:
    """One video on its way."""

    def __init__(self, folder: Path, request: Request, config: Config) -> None:
        self.folder, self.request, self.config = folder, request, config
        self.video = folder / "video.mp4"

    @classmethod
    def create(cls, folder: Path, request: Request, config: Config, image: np.ndarray) -> Run:
        """A new run in a folder that does not exist yet or is empty.

        Raises:
            OutputError: the folder cannot be written.
            RunError: there is a run in it already.
        """
        if (folder / "config.json").exists():
            raise RunError(
                f"{folder} holds a run already: go on with `longtake resume {folder}`, or name another folder"
            )
        try:
            (folder / "sections").mkdir(parents=True, exist_ok=True)
            (folder / "segments").mkdir(exist_ok=True)
            save_image(image, folder / "start.png")
            _write_json(folder / "request.json", request)
            _write_json(folder / "config.json", config)  # last: a folder with a config is a whole run
        except OSError as error:
            raise OutputError(f"{folder}: the run cannot be written ({error.strerror or error})") from error
        return cls(folder, request, config)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in a folder.

        Raises:
            RunError: there is none, or its files cannot be read.
        """
        if not (folder / "config.json").is_file():
            raise RunError(f"{folder}: there is no run here (no config.json)")
        try:
            request = Request.model_validate_json((folder / "request.json").read_text())
            config = Config.model_validate_json((folder / "config.json").read_text())
        except (OSError, ValidationError) as error:
            raise RunError(f"{folder}: the run's request or config cannot be read ({error})") from error
        run = cls(folder, request, config)
        for leftover in [*folder.glob("*.unfinished"), *folder.glob("*/*.unfinished")]:
            leftover.unlink()
        return run

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the run is worked on; released by the system if the process dies.

        Raises:
            RunError: another process works on this run.
        """
        with open(self.folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{self.folder}: another process works on this run") from None
            yield

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
        note = {"frames": list(section.frames), "seed": self.config.seed_of(section.index)}
        _write_latents(self.section_path(section.index), latents, note)

    def read_start(self) -> Float[Tensor, "1 c 1 h w"] | None:
        """Latents of the start image, if they are known."""
        path = self.folder / "start.safetensors"
        return _read_latents(path)[0] if path.exists() else None

    def write_start(self, latents: Float[Tensor, "1 c 1 h w"]) -> None:
        """Keeps the latents of the start image: it is encoded once."""
        _write_latents(self.folder / "start.safetensors", latents, {"frames": [0]})

    def segment(self, place: int) -> Segment:
        """The segment of a section by its place in time; its file may not be there yet."""
        each = self.config.temporal_ratio * len(self.config.plan().sections[0].frames)
        first = 1 + each * place if place else 0
        return Segment(self.folder / "segments" / f"{place:04d}.mp4", first, each if place else each + 1)

    def has_segment(self, place: int) -> bool:
        """True if that section's images are encoded."""
        return self.segment(place).path.exists()

    def write_images(self, place: int, images: np.ndarray) -> None:
        """Encodes a section's images and lets the video grow by them."""
        segment = self.segment(place)
        c = self.config
        write_segment(images, segment.path, segment.first, c.fps, c.crf, c.scale)
        if place == 0 and not self.video.exists():
            append_segment(self.video, segment)
        elif place > 0 and self.has_segment(place - 1) and not self.has_segment(place + 1) and self.video.exists():
            append_segment(self.video, segment)
        else:
            self.rebuild_video()

    def rebuild_video(self) -> None:
        """Writes the growing video anew from the segments that are there and follow each other."""
        paths = sorted((self.folder / "segments").glob("*.mp4"))
        places = [int(path.stem) for path in paths]
        contiguous = [p for p in places if all(q in places for q in range(places[0], p + 1))]
        if contiguous:
            join_segments([self.segment(p) for p in contiguous], self.video)
        else:
            self.video.unlink(missing_ok=True)

    def forget_from(self, section: int, seeds: dict[int, int]) -> Run:
        """The run without the sections made from `section` on; those are to be made with other seeds.

        Raises:
            RunError: there is no such section.
        """
        plan = self.config.plan()
        if not 0 <= section < len(plan.sections):
            raise RunError(f"section {section} does not exist: this run has sections 0 to {len(plan.sections) - 1}")
        config = self.config.model_copy(
            update={"seeds": {**{k: v for k, v in self.config.seeds.items() if k < section}, **seeds}}
        )
        generated = len(plan.sections[0].frames)
        for later in plan.sections[section:]:
            self.section_path(later.index).unlink(missing_ok=True)
        dropped = {(s.frames[0] - 1) // generated for s in plan.sections[section:]}
        # A segment is decoded behind the frames before it, so the one after a dropped section changes too.
        for place in dropped | {p + 1 for p in dropped}:
            self.segment(place).path.unlink(missing_ok=True)
        _write_json(self.folder / "config.json", config)
        run = Run(self.folder, self.request, config)
        run.rebuild_video()
        return run

    @staticmethod
    def free_bytes(folder: Path) -> int:
        """Room left where a folder is or would be."""
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free


def _write_json(path: Path, content: BaseModel) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(content.model_dump_json(indent=2) + "\n")
    os.replace(unfinished, path)


def _write_latents(path: Path, latents: Tensor, note: dict) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        save_file(
            {"latents": latents.detach().float().cpu().contiguous()},
            unfinished,
            metadata={"longtake": json.dumps(note)},
        )
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(f"{path}: could not be written ({error}); what was finished before stays") from error


def _read_latents(path: Path) -> tuple[Tensor, dict]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("latents"), json.loads((file.metadata() or {})["longtake"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete it to have it made again") from error


def frames_of(run: Run, sections: Sequence[Section], frames: range) -> Float[Tensor, "1 c t h w"]:
    """Latents of frames that are finished, from disk."""
    generated = len(sections[0].frames)
    by_place = {(s.frames[0] - 1) // generated: s for s in sections}
    parts = []
    for frame in frames:
        if frame == 0:
            parts.append(run.read_start())
        else:
            section = by_place[(frame - 1) // generated]
            at = frame - section.frames[0]
            parts.append(run.read_section(section)[:, :, at : at + 1])
    return torch.cat(parts, dim=2)
