"""A job: a video that is asked for, from the queue to its end; and what is said of it over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from longtake.web.refusal import Refusal

__all__ = ["ENDS", "MOVES", "Action", "Job", "Kind", "Part", "Status", "Wish", "moved", "summary", "video_of"]

Status = Literal["queued", "in_progress", "paused", "completed", "failed", "cancelled"]
Kind = Literal["generate", "extend"]
Wish = Literal["pause", "stop", "cancel"]
Action = Literal["lease", "complete", "fail", "pause", "cancel", "return", "resume", "remake"]

# Every legal change of state. What is not here is refused.
MOVES: Mapping[tuple[Status, Action], Status] = {
    ("queued", "lease"): "in_progress",
    ("in_progress", "complete"): "completed",
    ("in_progress", "fail"): "failed",
    ("in_progress", "pause"): "paused",
    ("in_progress", "cancel"): "cancelled",
    ("in_progress", "return"): "queued",
    ("queued", "pause"): "paused",
    ("queued", "cancel"): "cancelled",
    ("paused", "cancel"): "cancelled",
    ("failed", "cancel"): "cancelled",
    ("paused", "resume"): "queued",
    ("failed", "resume"): "queued",
    ("cancelled", "resume"): "queued",
    ("completed", "resume"): "queued",  # one that was stopped before its end
    ("queued", "remake"): "queued",
    ("paused", "remake"): "queued",
    ("failed", "remake"): "queued",
    ("cancelled", "remake"): "queued",
    ("completed", "remake"): "queued",
}
ENDS: Mapping[str, Action] = {  # what a worker says at the end of a lease
    "completed": "complete", "failed": "fail", "paused": "pause", "cancelled": "cancel", "returned": "return",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A section of a job, as far as it is."""

    index: int  # in the order of making
    place: int  # in time
    state: Literal["empty", "working", "done"] = "empty"
    step: int = 0
    steps: int = 0
    seconds: float | None = None  # that it took
    meter: Mapping[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """As JSON says it."""
        return {
            "index": self.index, "place": self.place, "state": self.state, "step": self.step, "steps": self.steps,
            "seconds": self.seconds, "meter": self.meter,
        }  # fmt: skip


class Job(BaseModel):
    """What is kept of a job, beside its plan and its sections."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    status: Status = "queued"
    created_at: int
    started_at: int | None = None
    completed_at: int | None = None
    kind: Kind = "generate"
    model: str  # as the studio calls it
    asked: dict[str, Any]  # of Request's or Extension's fields; images and videos are uploads
    inputs: dict[str, str] = {}  # the files of those uploads, by the run folder's names for them
    seconds: str
    size: str
    kin: str = ""  # jobs with the same take as long for a step
    remixed_from: str | None = None
    rank: float = 0.0  # in the queue, the least first
    lease: str | None = None
    worker: str | None = None
    lost: int = 0  # leases in a row without a section
    stopping: Wish | None = None
    progress: int = 0
    codec: str | None = None
    eta_seconds: float | None = None
    peak_memory_mb: int | None = None
    unread: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    images_done: int = 0
    revision: int = 0
    prompts: dict[int, str] = {}  # of sections, that were told later
    seeds: dict[int, int] = {}
    error: dict[str, Any] | None = None

    def but(self, **changes: Any) -> Job:
        """The same job with some fields changed."""
        return self.model_copy(update=changes)

    @property
    def prompt(self) -> str:
        """What the whole video is told."""
        return self.asked.get("prompt", "")

    @property
    def words(self) -> str:
        """Every prompt, to be searched."""
        cues = (self.asked.get("storyboard") or {}).get("cues", ())
        told = [self.prompt, *(cue.get("prompt") or "" for cue in cues), *self.prompts.values()]
        return "\n".join(told).casefold()


def moved(job: Job, action: Action, **changes: Any) -> Job:
    """The job after an action.

    Raises:
        Refusal: it cannot be done in the state that the job is in.
    """
    status = MOVES.get((job.status, action))
    if status is None:
        can = sorted({a for s, a in MOVES if s == job.status})
        would = f"what can be done is: {', '.join(can)}"
        raise Refusal("conflict", f"a video that is {job.status} cannot {action}; {would}")
    return job.but(status=status, **changes)


def summary(parts: Iterable[Part], steps: int) -> int:
    """How much of the work is done, in percent, rounded down."""
    parts = tuple(parts)
    whole = len(parts) * max(1, steps)
    made = sum(max(1, steps) if part.state == "done" else min(part.step, steps) for part in parts)
    return 100 * made // whole if whole else 0


def video_of(
    job: Job, position: int | None, parts: Iterable[Part], plan: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A job as JSON says it."""
    return {
        "id": job.id,
        "object": "video",
        "status": job.status,
        "progress": job.progress,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "expires_at": None,
        "model": job.model,
        "prompt": job.prompt,
        "seconds": job.seconds,
        "size": job.size,
        "error": job.error,
        "remixed_from_video_id": job.remixed_from,
        "longtake": {
            "request": job.asked,
            "kind": job.kind,
            "position": position,
            "stopping": job.stopping,
            "plan": plan,
            "sections": [part.data for part in parts],
            "codec": job.codec,
            "eta_seconds": job.eta_seconds,
            "peak_memory_mb": job.peak_memory_mb,
            "worker": job.worker,
            "unread": list(job.unread),
            "remarks": list(job.remarks),
            "images_done": job.images_done,
            "revision": job.revision,
        },
    }
