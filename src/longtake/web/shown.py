"""What can be seen of a job: the finished video, what is there of it, pictures of it. Made once, then kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from longtake.media import Segment, join_segments, save_image, whole, write_video
from longtake.web.job import Job
from longtake.web.pictures import KINDS, last_image, written
from longtake.web.refusal import Refusal
from longtake.web.studio import Studio

__all__ = ["Shown", "content", "ending", "piece", "source"]

MAKING = Lock()  # one at a time: they are for people to look at, and others use the machine, too


@dataclass(frozen=True, slots=True)
class Shown:
    """A file to be sent."""

    path: Path
    media_type: str
    name: str
    tag: str  # of its content


def pieces(studio: Studio, job: Job) -> list[Segment]:
    """What is decoded in a row from the earliest piece on, in time order."""
    plan, folder = studio.store.plan(job.id), studio.folders.of(job.id)
    if plan is None:
        return []
    made = sorted((section["images"], section["place"]) for section in plan["sections"])
    every = [Segment(folder / "segments" / f"{place:04d}.mp4", a, b - a) for (a, b), place in made]
    given = [folder / "source" / f"{n:04d}.mp4" for n in studio.folders.numbered(job.id, "source", "mp4")]
    if given:  # 64 images each, the last one the rest
        begin, end = (0, made[0][0][0]) if made[0][0][0] else (made[-1][0][1], plan["images"])
        starts = range(begin, end, 64)
        source = [Segment(path, at, min(64, end - at)) for path, at in zip(given, starts, strict=False)]
        every = sorted([*every, *source], key=lambda segment: segment.first)
    out = list[Segment]()
    for segment in every:
        if segment.path.is_file():
            out.append(segment)
        elif out:
            break
    return out


def content(studio: Studio, job: Job, variant: str, partial: bool) -> Shown:
    """A finished video or a picture of it; with `partial`, of what is there. It blocks.

    Raises:
        Refusal: there is nothing to be seen yet.
    """
    folder, ready = studio.folders.of(job.id), job.status == "completed"
    if not (ready or partial):
        raise Refusal("not_ready", f"this video is {job.status}; partial=1 gives what is there of it", "variant")
    output = folder / "output.mp4"
    if ready and output.is_file():
        parts, count, fps = [output], job.images_done, (studio.store.plan(job.id) or {}).get("fps", 12.0)
    else:
        segments = pieces(studio, job)
        if not segments:
            raise Refusal("not_ready", "no image of this video is made yet; its events tell when one is", "variant")
        parts, count = [segment.path for segment in segments], sum(segment.images for segment in segments)
        fps = (studio.store.plan(job.id) or {})["fps"]
        if variant == "video":
            tag = _tag(parts)
            path = folder / "shown" / f"partial-{tag}.mp4"
            _once(path, lambda: write_video(segments, path, ""))
            return Shown(path, "video/mp4", f"{job.id}-partial.mp4", tag)
    tag = _tag(parts)
    if variant == "video":
        return Shown(output, "video/mp4", f"{job.id}.mp4", tag)
    kind = KINDS[variant]
    path = folder / "shown" / f"{variant}-{tag}.{kind.ending}"
    _once(path, lambda: written(kind, parts, max(1, count), fps, path))
    return Shown(path, kind.media_type, f"{job.id}-{variant}.{kind.ending}", tag)


def piece(studio: Studio, job: Job, place: int) -> Shown:
    """A section as a fragmented MP4 from time 0; -1 is the video that is made longer.

    Raises:
        Refusal: it is not there.
    """
    folder = studio.folders.of(job.id)
    if place >= 0:
        path = folder / "segments" / f"{place:04d}.mp4"
        if not path.is_file():
            raise Refusal("not_found", f"the section at place {place} cannot be seen yet; events tell when it can")
        return Shown(path, "video/mp4", f"{job.id}-{place:04d}.mp4", _tag([path]))
    given = [folder / "source" / f"{n:04d}.mp4" for n in studio.folders.numbered(job.id, "source", "mp4")]
    if not given:
        raise Refusal("not_found", "no images come before section 0 as a piece of their own; place 0 begins the video")
    tag = _tag(given)
    path = folder / "shown" / f"source-{tag}.mp4"
    segments = [Segment(one, 64 * number, 64) for number, one in enumerate(given)]
    _once(path, lambda: join_segments(segments, path))
    return Shown(path, "video/mp4", f"{job.id}-source.mp4", tag)


def ending(studio: Studio, job: Job, place: int) -> Shown:
    """The last image of a section as PNG. It blocks.

    Raises:
        Refusal: the section is not there.
    """
    found = piece(studio, job, place)
    path = studio.folders.of(job.id) / "shown" / f"last-{place}-{found.tag}.png"

    def write() -> None:
        with whole(path) as unfinished:
            save_image(last_image(found.path), unfinished)

    _once(path, write)
    return Shown(path, "image/png", f"{job.id}-{place:04d}-last.png", found.tag)


def source(studio: Studio, job: Job) -> Shown:
    """The start image as PNG: as the model sees it where that is known, else as it came. It blocks.

    Raises:
        Refusal: there is none.
    """
    folder = studio.folders.of(job.id)
    upload = job.asked.get("image")
    asked = folder / job.inputs[upload] if upload in job.inputs else None
    for path in (folder / "start.png", asked):
        if path and path.is_file():
            return Shown(path, "image/png", f"{job.id}-source.png", _tag([path]))
    video = job.asked.get("video")
    if video in job.inputs:
        from longtake.web.pictures import first_image

        path = folder / "shown" / "first.png"

        def write() -> None:
            with whole(path) as unfinished:
                save_image(first_image(folder / job.inputs[video]), unfinished)

        _once(path, write)
        return Shown(path, "image/png", f"{job.id}-source.png", _tag([path]))
    raise Refusal("not_found", "this video has no start image yet; its events tell when it has")


def _once(path: Path, write: Callable[[], None]) -> None:
    if path.is_file():
        return
    path.parent.mkdir(exist_ok=True)
    with MAKING:
        if not path.is_file():
            write()


def _tag(paths: Sequence[Path]) -> str:
    """What stands for the content of files: their names, sizes and times of change."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:20]
