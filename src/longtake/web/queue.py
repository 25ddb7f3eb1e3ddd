"""Leases: a worker has a job as long as it is heard of. Whoever lost a lease can do nothing with it any more."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from secrets import token_hex
from typing import Any

from longtake.web.job import ENDS, Action, Job, Part, Wish, moved, summary
from longtake.web.planning import priced
from longtake.web.refusal import Refusal
from longtake.web.schema import placed
from longtake.web.studio import Studio, now

__all__ = ["beat", "end", "expire", "hold", "lease", "listed"]

LOSSES = 3  # leases in a row that are lost without a section before a job is taken for one that kills its workers
WISHED: Mapping[Wish | None, Action] = {
    None: "return",
    "stop": "pause",
    "pause": "pause",
    "cancel": "cancel",
}  # what becomes of work that is not done: a wish holds without a worker
UNLEASED: Mapping[str, Any] = {"lease": None, "worker": None, "stopping": None, "eta_seconds": None}


def lease(studio: Studio, worker: str) -> Job | None:
    """Gives a worker the next job; None if there is none. It blocks for a moment."""
    studio.seen[worker] = time.monotonic()
    if not studio.store.count("queued"):
        return None
    with studio.store.change():
        waiting = studio.store.queue(1)
        if not waiting:
            return None
        studio.resync(waiting[0])
        job = studio.store.job(waiting[0])
        token = f"lease_{token_hex(16)}"
        job = moved(job, "lease", lease=token, worker=worker, started_at=job.started_at or now(), error=None,
                    completed_at=None)  # fmt: skip
        studio.beats[token] = time.monotonic() + studio.settings.lease_seconds
        studio.store.put(job, tell=True)
        return job


def listed(studio: Studio, job: Job) -> dict[str, Any]:
    """What a worker is given with a lease. It blocks while files are read."""
    fields = {**job.asked, "model": studio.settings.models.get(job.model, job.model)}
    home = studio.settings.loras
    if home:
        fields["loras"] = [{**lora, "file": str(home / lora["file"])} for lora in job.asked.get("loras", ())]
    return {
        "lease": job.lease,
        "seconds": studio.settings.lease_seconds,
        "video": studio.store.video(job),
        "kind": job.kind,
        "request": placed(fields, lambda upload: job.inputs.get(upload, upload)),
        "overrides": {"prompts": job.prompts, "seeds": job.seeds},
        "files": studio.folders.listing(job.id),
    }


def hold(studio: Studio, lease: str) -> Job:
    """The job of a lease, which holds on.

    Raises:
        Refusal: the lease is lost.
    """
    job = studio.store.leased(lease)
    if job is None or studio.beats.get(lease, 0.0) < time.monotonic():
        raise Refusal("lease_lost", "this lease is lost; drop the work and ask for another one")
    studio.beats[lease] = time.monotonic() + studio.settings.lease_seconds
    if job.worker:
        studio.seen[job.worker] = time.monotonic()
    return job


def beat(studio: Studio, lease: str, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Takes in what a worker says, and gives what it is to do.

    Raises:
        Refusal: the lease is lost, or a section is told whose files are not there.
    """
    with studio.store.change():
        job = hold(studio, lease)
        for event in said:
            job = HEARD[event["type"]](studio, job, event)
    return {
        "order": job.stopping or "go",
        "revision": job.revision,
        "prompts": {str(index): text for index, text in job.prompts.items()},
    }


def end(studio: Studio, lease: str, status: str, error: Mapping[str, Any] | None, peak: int | None) -> Job:
    """Ends a lease as its worker says.

    Raises:
        Refusal: the lease is lost, or a video is said to be completed that is not there.
    """
    with studio.store.change():
        job = hold(studio, lease)
        if status == "completed" and not studio.folders.has(job.id, "output.mp4"):
            raise Refusal("conflict", "a completed video has its output.mp4; send that first", "status")
        told = None
        if error is not None:
            message = studio.scrubbed(str(error.get("message") or "the worker failed"))
            told = {"code": str(error.get("code") or "failed"), "message": message, "param": error.get("param")}
        if status == "failed" and told is None:
            told = {"code": "failed", "message": "the worker failed without a word; resume tries again", "param": None}
        action = _ending(studio, job, status)
        at = now() if action in ("complete", "fail", "cancel") else None
        changes: dict[str, Any] = {"error": told, "completed_at": at, **UNLEASED}
        if action == "return":
            changes["rank"] = studio.store.rank("first")
        if peak is not None:
            changes["peak_memory_mb"] = peak
        job = moved(job, action, **changes)
        _put_back(studio, job, lease)
    return studio.store.job(job.id)


def _ending(studio: Studio, job: Job, status: str) -> Action:
    """What the end of a lease means. What was wished last counts, which the worker may not have heard of yet."""
    whole = all(part.state == "done" for part in studio.store.parts(job.id))
    if status == "failed" or (status == "completed" and (whole or job.stopping == "stop")):
        return ENDS[status]
    return WISHED[job.stopping]


def expire(studio: Studio) -> None:
    """Takes back the jobs of workers that were not heard of for too long. It blocks for a moment."""
    late = [lease for lease, until in studio.beats.items() if until < time.monotonic()]
    for lease in late:
        with studio.store.change():
            job = studio.store.leased(lease)
            if job is None:
                studio.beats.pop(lease, None)
                continue
            lost = job.lost + 1
            if lost >= LOSSES:
                message = f"{LOSSES} workers in a row were lost with this video; a smaller one may do, or resume it"
                error = {"code": "worker_lost", "message": message, "param": None}
                job = moved(job, "fail", lost=0, error=error, completed_at=now(), **UNLEASED)
            else:
                job = moved(job, WISHED[job.stopping], lost=lost, rank=studio.store.rank("first"), **UNLEASED)
            _put_back(studio, job, lease)
    for worker, heard in list(studio.seen.items()):
        if heard < time.monotonic() - 3600:
            studio.seen.pop(worker, None)


def _put_back(studio: Studio, job: Job, lease: str) -> None:
    studio.store.put(job)
    studio.resync(job.id)
    studio.store.put(studio.store.job(job.id), tell=True)
    studio.beats.pop(lease, None)


def _planned(studio: Studio, job: Job, event: Mapping[str, Any]) -> Job:
    store = studio.store
    plan, before = priced(event["plan"], store.usual_seconds(job.kin)), store.plan(job.id) or {}
    plan["told"] = [studio.scrubbed(line) for line in plan.get("told") or before.get("told", ())]
    old = {part.index: part for part in store.parts(job.id)}
    meters = {meter["place"]: meter for meter in event.get("meters", ())}
    done = set(studio.folders.numbered(job.id, "sections", "safetensors"))
    parts = []
    for section in plan["sections"]:
        index, place = section["index"], section["place"]
        part = old.get(index)
        made = index in done
        meter = meters.get(place) or (part.meter if part and made else None)
        seconds = part.seconds if part and made else None
        state = "done" if made else "empty"
        steps = plan["steps"]
        parts.append(Part(index, place, state, steps if made else 0, steps, seconds, _meter(meter)))
    store.put_parts(job.id, parts, anew=True)
    store.put_plan(job.id, plan)
    job = job.but(
        size=f"{plan['width']}x{plan['height']}",
        unread=tuple(map(studio.scrubbed, event.get("unread", ()))),
        remarks=tuple(map(studio.scrubbed, event.get("remarks", ()))),
        progress=summary(parts, plan["steps"]),
    )
    return _told(studio, job)


def _meter(meter: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {key: value for key, value in meter.items() if key != "place"} if meter else None


def _told(studio: Studio, job: Job) -> Job:
    studio.store.put(job.but(images_done=studio.images_done(job.id)), tell=True)
    return studio.store.job(job.id)


def _step(studio: Studio, job: Job, event: Mapping[str, Any]) -> Job:
    parts = studio.store.parts(job.id)
    changed = [
        replace(part, state="working", step=min(event["step"], event["steps"]), steps=event["steps"])
        for part in parts
        if part.index == event["section"] and part.state != "done"
    ]
    if not changed:
        return job
    studio.store.put_parts(job.id, changed)
    parts = [changed[0] if part.index == changed[0].index else part for part in parts]
    left = sum(part.state != "done" for part in parts)
    usual = [part.seconds for part in parts if part.seconds is not None]
    eta = event.get("eta_seconds")
    if eta is None and usual:
        eta = sum(usual) / len(usual) * (left - changed[0].step / changed[0].steps)
    job = job.but(progress=summary(parts, event["steps"]), eta_seconds=eta)
    studio.store.put(job)
    keys = ("section", "place", "step", "steps")
    data = {"id": job.id, **{key: event[key] for key in keys}, "eta_seconds": eta}
    studio.store.tell("step", job.id, data, section=event["section"])
    return job


def _preview(studio: Studio, job: Job, event: Mapping[str, Any]) -> Job:
    data = {"id": job.id, **{key: event[key] for key in ("section", "place", "step", "image")}}
    studio.store.tell("preview", job.id, data, section=event["section"])
    return job


def _section(studio: Studio, job: Job, event: Mapping[str, Any]) -> Job:
    """Counts a section, whose files are there."""
    store, index = studio.store, event["section"]
    names = [f"sections/{index:04d}.safetensors", *(f"segments/{place:04d}.mp4" for place in event["ready"])]
    for name in names:
        if not studio.folders.has(job.id, name):
            raise Refusal("conflict", f"a section counts when its files are here, and {name} is not", "section")
    meters = {meter["place"]: meter for meter in event.get("meter") or ()}
    parts = store.parts(job.id)
    fixed = []
    for part in parts:
        if part.index == index:
            part = replace(part, state="done", step=part.steps, seconds=event.get("seconds"))
        if part.place in meters:
            part = replace(part, meter=_meter(meters[part.place]))
        fixed.append(part)
    store.put_parts(job.id, [new for new, old in zip(fixed, parts, strict=True) if new != old])
    images = studio.images_done(job.id)
    codec = job.codec or next((studio.codec(job.id, place) for place in event["ready"]), None)
    steps = max((part.steps for part in fixed), default=1)
    job = job.but(progress=summary(fixed, steps), images_done=images, lost=0, codec=codec)
    store.put(job, tell=codec is not None and not studio.store.job(job.id).codec)
    keys = ("section", "place", "ready")
    data = {"id": job.id, **{key: event[key] for key in keys}, "seconds": event.get("seconds")}
    meter = [{"place": place, **(_meter(one) or {})} for place, one in meters.items()]
    store.tell("section", job.id, {**data, "images_done": images, "meter": meter}, section=index)
    return job


def _log(studio: Studio, job: Job, event: Mapping[str, Any]) -> Job:
    studio.store.tell("log", job.id, {"id": job.id, "message": studio.scrubbed(event["message"])})
    return job


HEARD = {"planned": _planned, "step": _step, "preview": _preview, "section": _section, "log": _log}
