"""What workers say and are told. Only they call this."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from longtake.web import queue
from longtake.web.api.context import Workshop, answer
from longtake.web.api.shapes import Index, Leased, Ordered, PlanShape, Video, refusals
from longtake.web.folder import Incoming
from longtake.web.refusal import Refusal
from longtake.web.studio import Studio

__all__ = ["router"]

router = APIRouter(prefix="/v1/worker", tags=["workers"])
Lease = Annotated[str, InPath(max_length=100, description="A lease")]
Name = Annotated[str, InPath(max_length=200, description="A file of a run folder")]
PICTURE = r"^data:image/(webp|png|jpeg);base64,[A-Za-z0-9+/=]*$"


class Asking(BaseModel):
    """A worker that can work."""

    model_config = ConfigDict(extra="forbid")

    worker: str = Field(min_length=1, max_length=100, pattern=r"^[ -~]+$")
    wait: float = Field(default=0, ge=0, le=20)  # seconds


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Measured(_Said):
    """The meter of the section at a place in time."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    place: Index
    sharpness: float
    color: float
    motion: float
    latent_mean: float
    latent_std: float
    jump: float


class Planned(_Said):
    """The work is known."""

    type: Literal["planned"]
    plan: PlanShape
    unread: list[str] = []
    remarks: list[str] = []
    meters: list[Measured] = []
    finished: int | None = None


class Stepped(_Said):
    """A section came a step nearer."""

    type: Literal["step"]
    section: Index
    place: Index
    step: int = Field(ge=0, le=10**6)
    steps: int = Field(ge=1, le=10**6)
    eta_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Previewed(_Said):
    """How a section looks so far."""

    type: Literal["preview"]
    section: Index
    place: Index
    step: int = Field(ge=0, le=10**6)
    image: str = Field(max_length=400_000, pattern=PICTURE)


class Made(_Said):
    """A section is done, and its files are here."""

    type: Literal["section"]
    section: Index
    place: Index
    images_done: int | None = None
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    meter: list[Measured] | None = None
    ready: list[Index] = []


class Logged(_Said):
    """Something to be read."""

    type: Literal["log"]
    message: str = Field(max_length=100_000)


Said = Annotated[Planned | Stepped | Previewed | Made | Logged, Field(discriminator="type")]


class Trouble(BaseModel):
    """Why a worker failed."""

    model_config = ConfigDict(extra="ignore")

    code: str = Field(default="failed", max_length=100)
    message: str = Field(default="the worker failed", max_length=20_000)
    param: str | None = Field(default=None, max_length=200)


class Ended(BaseModel):
    """How a lease ends."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["completed", "failed", "paused", "cancelled", "returned"]
    error: Trouble | None = None
    peak_memory_mb: int | None = Field(default=None, ge=0, le=2**40)


@router.post(
    "/lease",
    summary="Ask for work",
    response_model=Leased,
    responses={204: {"description": "There is none"}, **refusals()},
)
async def lease(body: Asking, request: Request, studio: Workshop) -> Response:
    """The next job, within `wait` seconds. Whoever is not heard of for 15 s loses it."""
    job = await studio.hub.until(lambda: queue.lease(studio, body.worker), body.wait)
    if job is None:
        return Response(status_code=204)
    if job.lease and await request.is_disconnected():  # nobody hears that there is work
        await run_in_threadpool(queue.end, studio, job.lease, "returned", None, None)
        return Response(status_code=204)
    return answer(await run_in_threadpool(queue.listed, studio, job))


FILE = {200: {"content": {"application/octet-stream": {}}, "description": "The file"}}


@router.get(
    "/leases/{lease}/files/{name:path}",
    summary="A file of the job's run folder",
    response_class=FileResponse,
    responses={**FILE, **refusals(404, 409)},
)
def read(lease: Lease, name: Name, studio: Workshop) -> Response:
    """As it was sent."""
    job = queue.hold(studio, lease)
    path = studio.folders.path(job.id, name, reading=True)
    if not path.is_file():
        raise Refusal("not_found", f"there is no file {name} yet; the lease lists those that there are")
    return FileResponse(path, media_type="application/octet-stream")


@router.put(
    "/leases/{lease}/files/{name:path}",
    summary="Send a file of the job's run folder",
    status_code=204,
    response_class=Response,
    responses=refusals(404, 409),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def write(
    lease: Lease,
    name: Name,
    request: Request,
    studio: Workshop,
    x_sha256: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """There whole or not at all; the same file can be sent again."""
    job = await run_in_threadpool(queue.hold, studio, lease)
    path = studio.folders.path(job.id, name)
    unsettled = await studio.folders.receive(path, request.stream(), x_sha256, studio.settings.limits.file_bytes)
    await run_in_threadpool(_settle, studio, lease, unsettled)
    return Response(status_code=204)


def _settle(studio: Studio, lease: str, unsettled: Incoming) -> None:
    """Gives a file its name, if whoever sent it still has the lease."""
    try:
        queue.hold(studio, lease)
        unsettled.keep()
    finally:
        unsettled.drop()


@router.post(
    "/leases/{lease}/events",
    summary="Say what happened, hear what to do",
    response_model=Ordered,
    responses=refusals(409),
)
def say(lease: Lease, body: list[Said], studio: Workshop) -> Response:
    """An empty list is a sign of life."""
    return answer(queue.beat(studio, lease, [said.model_dump() for said in body]))


@router.post("/leases/{lease}/end", summary="End a lease", response_model=Video, responses=refusals(409))
def end(lease: Lease, body: Ended, studio: Workshop) -> Response:
    """The job as it is then."""
    error = body.error.model_dump() if body.error else None
    return answer(studio.store.video(queue.end(studio, lease, body.status, error, body.peak_memory_mb)))
