"""The studio: its memory, its files, its engine, and what holds them together."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Any

from longtake.web.engine import Engine
from longtake.web.events import Hub
from longtake.web.folder import Folders
from longtake.web.job import Job, Kind, Part, summary
from longtake.web.planning import Checked, check, priced
from longtake.web.refusal import Refusal, scrubbed
from longtake.web.schema import UPLOAD, Wanted, placed
from longtake.web.segments import codec_of
from longtake.web.settings import Settings
from longtake.web.store import Store
from longtake.web.uploads import Uploads

__all__ = ["Studio", "now"]


def now() -> int:
    """Unix time."""
    return int(time.time())


class Studio:
    """Everything that the calls work on."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.hub, self.engine = settings, Hub(), Engine()
        for folder in ("uploads", "jobs", "work"):
            (settings.home / folder).mkdir(parents=True, exist_ok=True)
        self.store = Store(settings.home / "studio.sqlite", self.hub.publish)
        self.folders = Folders(settings.home)
        self.uploads = Uploads(settings.home / "uploads", self.store, settings.limits)
        self.beats = dict[str, float]()  # until when a lease holds, on the monotonic clock
        self.seen = dict[str, float]()  # when a worker was heard of last
        self.remaking = Lock()  # held while files of sections go: nothing is resumed, deleted or copied meanwhile
        self._replay()

    def _replay(self) -> None:
        """Takes up where a server was killed: leases hold on for a while, files say what is done."""
        self.folders.sweep(set(self.store.ids()), self.store.ids("in_progress"))
        for leftover in (self.settings.home / "uploads").glob("incoming-*"):
            leftover.unlink(missing_ok=True)
        for lease in self.store.leases():
            self.beats[lease] = time.monotonic() + self.settings.lease_seconds
        for id in self.store.ids("in_progress", "paused"):  # of others nothing changed when the server was killed
            self.resync(id)

    def close(self) -> None:
        """Lets go of everything."""
        self.hub.close()
        self.store.close()

    def scrubbed(self, text: str) -> str:
        """A text without this machine's paths."""
        return scrubbed(text, self.settings.names)

    @cached_property
    def blank(self) -> Path:
        """An image that stands for a missing one, to plan with."""
        from PIL import Image

        path = self.settings.home / "work" / "blank.png"
        Image.new("RGB", (768, 512)).save(path)
        return path

    def workers(self) -> int:
        """How many workers were heard of lately."""
        since = time.monotonic() - 2 * self.settings.lease_seconds
        return sum(heard > since for heard in self.seen.values())

    def reference(self, given: str | dict[str, Any], param: str) -> str:
        """The upload that a reference in a request means.

        Raises:
            Refusal: it means none, or one that cannot stand there.
        """
        if param == "video":
            id = given.get("id") if isinstance(given, dict) else given
            if isinstance(id, str):
                return self._video_as_upload(id) if id.startswith("video_") else self._upload(id, "video", param)
            raise Refusal("invalid_request", 'video: the id of an upload would do, or {"id": "video_..."}', param)
        named = [given.get("image_url"), given.get("file_id")] if isinstance(given, dict) else [given]
        name = next((name for name in named if isinstance(name, str)), "")
        if name.startswith("data:"):
            return self.uploads.take_data(name)["id"]
        return self._upload(name, "image", param)

    def _upload(self, id: str, kind: str, param: str) -> str:
        if not UPLOAD.fullmatch(id) or not self.store.upload(id):
            raise Refusal(
                "invalid_request", f"{param}: there is no upload {id[:80]!r}; POST /v1/uploads makes one", param
            )
        if self.uploads.about(id)["kind"] != kind:
            raise Refusal("invalid_request", f"{param}: {id} is no {kind}; one would do", param)
        return id

    def _video_as_upload(self, id: str) -> str:
        job, path = self.store.job(id), self.folders.of(id) / "output.mp4"
        if not path.is_file():
            raise Refusal("not_ready", f"{id} is {job.status}; a video that is completed can be made longer", "video")
        width, height = map(int, job.size.split("x"))
        about = {"kind": "video", "width": width, "height": height, "images": job.images_done}
        return self.uploads.link(path, {**about, "seconds": float(job.seconds)})["id"]

    def checked(self, wanted: Wanted, planning: bool = False) -> Checked:
        """What a request comes to. It blocks."""
        self.engine.wait()
        blank = self.blank if planning and wanted.kind == "generate" else None
        found = check(wanted, self.settings, self.settings.home / "uploads", blank)
        return replace(found, plan=priced(found.plan, self.store.usual_seconds(found.kin)))

    def create(self, wanted: Wanted, remixed_from: str | None = None) -> Job:
        """A new job at the end of the queue. It blocks.

        Raises:
            Refusal: it cannot be served, or too many wait.
        """
        if self.store.count("queued") >= self.settings.limits.queued:
            raise Refusal("busy", f"{self.settings.limits.queued} videos wait already; cancel some, or come back later")
        checked = self.checked(wanted)
        job = self.blank_job(wanted.kind, checked, remixed_from)
        self.link_inputs(job)
        with self.store.change():
            job = job.but(rank=self.store.rank("last"))
            self.store.add(job, checked.plan)
            self.store.put_parts(job.id, parts_of(checked), anew=True)
            self.store.tell_job(job)
            self.store.tell("plan", job.id, {"id": job.id, "plan": checked.plan})
        return job

    def blank_job(self, kind: Kind, checked: Checked, remixed_from: str | None = None) -> Job:
        """A job of a request that can be served, which is not kept yet."""
        job = Job(
            id=f"video_{token_hex(12)}",
            created_at=now(),
            kind=kind,
            model=checked.model,
            asked=checked.fields,
            seconds=said_seconds(checked.seconds),
            size=checked.size,
            kin=checked.kin,
            remixed_from=remixed_from,
        )
        return job.but(inputs=self.inputs_of(checked.fields))

    def inputs_of(self, fields: dict[str, Any]) -> dict[str, str]:
        """The names that a run folder has for the uploads of a request."""
        found = dict[str, str]()

        def name(upload: str) -> str:
            ending = {"image": "png", "video": "mp4"}[self.uploads.about(upload)["kind"]]
            return found.setdefault(upload, f"inputs/{upload}.{ending}")

        placed(fields, name)
        return found

    def link_inputs(self, job: Job) -> None:
        """Puts the uploads of a job into its folder."""
        self.folders.of(job.id).mkdir(parents=True, exist_ok=True)
        for upload, name in job.inputs.items():
            self.folders.put_input(job.id, self.uploads.path(upload), name)

    def resync(self, id: str) -> None:
        """Lets the files say which sections are done."""
        done = set(self.folders.numbered(id, "sections", "safetensors"))
        with self.store.change():
            job, parts = self.store.job(id), self.store.parts(id)
            fixed = [settled(part, part.index in done) for part in parts]
            if fixed != parts:
                self.store.put_parts(id, fixed)
            steps = max((part.steps for part in parts), default=0)
            self.store.put(job.but(progress=summary(fixed, steps), images_done=self.images_done(id)))

    def codec(self, id: str, place: int) -> str | None:
        """What a browser is to expect of the job's segments."""
        return codec_of((self.folders.of(id) / "segments" / f"{place:04d}.mp4").read_bytes())

    def images_done(self, id: str) -> int:
        """Images that are there to be seen."""
        plan = self.store.plan(id)
        if not plan:
            return 0
        places = set(self.folders.numbered(id, "segments", "mp4"))
        lengths = {section["place"]: section["images"][1] - section["images"][0] for section in plan["sections"]}
        made = sum(length for place, length in lengths.items() if place in places)
        given = plan["images"] - sum(lengths.values())
        return made + (given if self.folders.numbered(id, "source", "mp4") else 0)


def parts_of(checked: Checked) -> list[Part]:
    """The sections of a request, none of which is made."""
    return [Part(index, place, steps=checked.steps) for index, place in enumerate(checked.sections)]


def settled(part: Part, done: bool) -> Part:
    """A section that nobody works on."""
    if done:
        return replace(part, state="done", step=part.steps)
    return replace(part, state="empty", step=0, seconds=None, meter=None)


def said_seconds(seconds: float) -> str:
    """Seconds as a string, as the schema wants them.

    >>> said_seconds(6), said_seconds(1 / 3)
    ('6.0', '0.333')
    """
    return str(round(float(seconds), 3))
