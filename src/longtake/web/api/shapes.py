"""The shapes of answers, for the OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from longtake.web.job import Kind, Status, Wish

__all__ = ["Deleted", "Failure", "Health", "Models", "Ordered", "PlanShape", "Upload", "Video", "Videos", "refusals"]


FINITE = ConfigDict(allow_inf_nan=False)
Index = Annotated[int, Field(ge=0, le=10**6)]
Range = Annotated[list[Annotated[int, Field(ge=0, le=10**9)]], Field(min_length=2, max_length=2)]


class Reason(BaseModel):
    """Why not, and what would do."""

    code: str
    message: str
    param: str | None


class Failure(BaseModel):
    """A call that was not served."""

    error: Reason


class PlannedSection(BaseModel):
    """A section of a plan. Ranges are half-open."""

    model_config = FINITE

    index: Index
    place: Index
    frames: Range
    images: Range
    start: float
    end: float
    seen: list[Range]
    context_tokens: int
    prompt: str
    seed: int


class PlanShape(BaseModel):
    """What would be made; sections in the order of making."""

    model_config = FINITE

    order: str
    schedule: str
    steps: Index
    fps: float
    frames: int
    images: int
    width: int
    height: int
    first_images: int
    sections: list[PlannedSection]
    told: list[str]
    estimate_seconds: float | None
    context_tokens_max: int


class SectionShape(BaseModel):
    """A section as far as it is."""

    index: int
    place: int
    state: Literal["empty", "working", "done"]
    step: int
    steps: int
    seconds: float | None
    meter: dict[str, float] | None


class LongtakePart(BaseModel):
    """What longtake says of a video beside OpenAI's fields."""

    request: dict[str, Any]
    kind: Kind
    position: int | None
    stopping: Wish | None
    plan: PlanShape | None
    sections: list[SectionShape]
    codec: str | None
    eta_seconds: float | None
    peak_memory_mb: int | None
    worker: str | None
    unread: list[str]
    remarks: list[str]
    images_done: int
    revision: int


class Video(BaseModel):
    """A video, from the queue to its end."""

    id: str
    object: Literal["video"]
    status: Status
    progress: int
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    model: str
    prompt: str
    seconds: str
    size: str
    error: Reason | None
    remixed_from_video_id: str | None
    longtake: LongtakePart


class Videos(BaseModel):
    """Some videos in a row."""

    object: Literal["list"]
    data: list[Video]
    has_more: bool
    first_id: str | None
    last_id: str | None


class Deleted(BaseModel):
    """A video that is gone."""

    id: str
    object: Literal["video.deleted"]
    deleted: bool


class Upload(BaseModel):
    """A file that was taken in."""

    id: str
    kind: Literal["image", "video"]
    width: int
    height: int
    images: int
    seconds: float


class Restored(BaseModel):
    """What a video of ours was asked to be."""

    request: dict[str, Any]
    image: str | None


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok"]
    engine: Literal["loading", "ready", "failed"]
    version: str
    workers: int
    queued: int
    authorization: Literal["none", "bearer"]


class ModelTraits(BaseModel):
    """How a model wants to be used."""

    present: bool
    orders: list[str]
    order: str
    schedules: list[str]
    schedule: str
    steps: int
    guidance: float
    size: list[int]
    sizes: list[list[int]]
    fps: float
    section_images: int
    codebooks: list[int]
    words: list[str] | None
    default: bool


class ModelShape(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    longtake: ModelTraits


class Models(BaseModel):
    """The models that can be asked for."""

    object: Literal["list"]
    data: list[ModelShape]


class Ordered(BaseModel):
    """What a worker is to do."""

    order: Literal["go", "pause", "stop", "cancel"]
    revision: int
    prompts: dict[str, str]


class Leased(BaseModel):
    """A job that a worker has."""

    lease: str
    seconds: float
    video: Video
    kind: Kind
    request: dict[str, Any]
    overrides: dict[str, dict[str, Any]]
    files: list[dict[str, Any]]


WHY: dict[int, str] = {
    401: "A token is needed", 403: "Not from there", 404: "There is no such thing", 409: "Not in its state",
    413: "Too large", 415: "It cannot be read", 422: "Something of the request is wrong", 429: "Too many wait",
    500: "The server failed",
}  # fmt: skip


def refusals(*status: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a call that is not served, for its description."""
    return {
        code: {"model": Failure, "description": WHY[code]}
        for code in (400, *sorted({401, 403, 413, 422, *status}))
        if code in WHY
    }
