"""Videos: asked for, watched, stopped, made otherwise, fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from longtake.web import actions, shown
from longtake.web.api.bodies import described, fields_of
from longtake.web.api.context import VideoId, Workshop, answer, heavily
from longtake.web.api.shapes import Deleted, PlanShape, Video, Videos, refusals
from longtake.web.job import Job, Status, Wish
from longtake.web.refusal import Refusal
from longtake.web.schema import Create, Extend, Plan, Wanted, read, wanted
from longtake.web.studio import Studio

__all__ = ["router"]

router = APIRouter(tags=["videos"])
LONG = 7 * 24 * 3600.0  # seconds that a synchronous call waits at most
CREATED = {200: {"model": Video, "description": "The video, in the queue"}}
Seed = Annotated[int | None, Field(ge=0, lt=2**63)]


class Rerolled(BaseModel):
    """From which section of the order on, and with which seed; null is a new one."""

    model_config = ConfigDict(extra="forbid")

    section: int = Field(ge=0, le=10**6)
    seed: Seed = None


class Branched(Rerolled):
    """And what those sections are told; null is what they were told."""

    prompt: str | None = Field(default=None, max_length=100_000)


class Moved(BaseModel):
    """Before which video; null is the end of the queue."""

    model_config = ConfigDict(extra="forbid")

    before: str | None


class Changed(BaseModel):
    """What sections that are not made yet are told, by their index; or what a waiting job is to be instead."""

    model_config = ConfigDict(extra="forbid")

    prompts: dict[Annotated[int, Field(ge=0, le=10**6)], Annotated[str, Field(max_length=100_000)]] | None = None
    request: dict[str, Any] | None = None


async def _wanted(request: Request, studio: Studio, kind: type[Plan]) -> Wanted:
    fields = await fields_of(request, studio)
    return await heavily(request, _read, studio, kind, fields)


def _read(studio: Studio, kind: type[Plan], fields: Mapping[str, Any]) -> Wanted:
    return wanted(read(kind, fields), studio.reference)


def _said(studio: Studio, job: Job) -> Response:
    return answer(studio.store.video(job))


async def _created(request: Request, studio: Studio, kind: type[Plan]) -> Job:
    asked = await _wanted(request, studio, kind)
    return await heavily(request, studio.create, asked)


@router.post(
    "/v1/plan",
    summary="What would be made",
    response_model=PlanShape,
    responses=refusals(404, 409, 415),
    openapi_extra=described(Plan, form=False),
)
async def plan(request: Request, studio: Workshop) -> Response:
    """Nothing is kept. Without `input_reference` a gray image stands for it; with `video` it is an extension's plan."""
    fields = await fields_of(request, studio)
    kind = Extend if "video" in fields else Create
    asked = await heavily(request, _read, studio, kind, fields)
    checked = await heavily(request, studio.checked, asked, True)
    return answer(checked.plan)


@router.post(
    "/v1/videos",
    summary="Ask for a video",
    response_model=Video,
    responses=refusals(404, 409, 415, 429),
    openapi_extra=described(Create),
)
async def create(request: Request, studio: Workshop) -> Response:
    """A video from a start image; it waits in the queue."""
    job = await _created(request, studio, Create)
    return await run_in_threadpool(_said, studio, job)


@router.post(
    "/v1/videos/extensions",
    summary="Ask for a longer video",
    response_model=Video,
    responses=refusals(404, 409, 415, 429),
    openapi_extra=described(Extend),
)
async def extend(request: Request, studio: Workshop) -> Response:
    """What comes after a video, or what was before it."""
    job = await _created(request, studio, Extend)
    return await run_in_threadpool(_said, studio, job)


@router.post(
    "/v1/videos/sync",
    summary="Ask for a video and wait for it",
    response_class=FileResponse,
    responses={
        200: {"content": {"video/mp4": {}}, "description": "The finished video"},
        **refusals(404, 409, 415, 429),
    },
    openapi_extra=described(Create),
)
async def create_and_wait(request: Request, studio: Workshop) -> Response:
    """The MP4, when it is finished. Who does not wait for it cancels it."""
    job = await _created(request, studio, Create)

    def ended() -> Job | None:
        now = studio.store.job(job.id)
        return None if now.status in ("queued", "in_progress") else now

    waiting = asyncio.ensure_future(studio.hub.until(ended, LONG))
    leaving = asyncio.ensure_future(_left(request))
    await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not waiting.done():
        waiting.cancel()
        await run_in_threadpool(actions.wish, studio, job.id, "cancel")
        raise Refusal("conflict", f"nobody waits for {job.id} any more; it is cancelled")
    end = waiting.result()
    if not isinstance(end, Job) or end.status != "completed":
        error = (end.error if isinstance(end, Job) else None) or {}
        why = error.get("message", "it was stopped")
        raise Refusal("conflict", f"{job.id} was not completed: {why}")
    return await _file(request, studio, end, "video", False)


async def _left(request: Request) -> None:
    """Returns when the caller is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get("/v1/videos", summary="The videos", response_model=Videos, responses=refusals(404))
def listed(
    studio: Workshop,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=100)] = None,
    order: Literal["asc", "desc"] = "desc",
    status: Status | None = None,
    q: Annotated[str | None, Query(max_length=1000, description="Words that are in a prompt")] = None,
) -> Response:
    """In the order in which they were asked for, newest first; without their plans."""
    page = studio.store.page(limit, after, order == "asc", status, q)
    data = [studio.store.video(job, plan=False) for job in page.jobs]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return answer({"object": "list", "data": data, "has_more": page.more, **ends})


@router.get("/v1/videos/{id}", summary="A video", response_model=Video, responses=refusals(404))
def retrieve(id: VideoId, studio: Workshop) -> Response:
    """As it is now, with its plan."""
    return _said(studio, studio.store.job(id))


@router.delete("/v1/videos/{id}", summary="Forget a video", response_model=Deleted, responses=refusals(404))
def delete(id: VideoId, studio: Workshop) -> Response:
    """Stops it if it is in work, and removes everything of it."""
    actions.delete(studio, id)
    return answer({"id": id, "object": "video.deleted", "deleted": True})


@router.patch(
    "/v1/videos/{id}", summary="Tell a video something else", response_model=Video, responses=refusals(404, 409)
)
async def change(id: VideoId, body: Changed, request: Request, studio: Workshop) -> Response:
    """Sections that are not made yet can be told something else; a job that is not begun can be another one."""
    return await heavily(request, _change, studio, id, body)


def _change(studio: Studio, id: str, body: Changed) -> Response:
    job = studio.store.job(id)
    if body.request is not None:
        asked = _read(studio, {"generate": Create, "extend": Extend}[job.kind], body.request)
        if "side" not in body.request:
            asked.fields.pop("side", None)
        job = actions.edit(studio, id, asked)
    if body.prompts is not None:
        job = actions.retell(studio, id, body.prompts)
    return _said(studio, job)


def _wish(studio: Studio, id: str, wanted: Wish) -> Response:
    return _said(studio, actions.wish(studio, id, wanted))


@router.post(
    "/v1/videos/{id}/cancel", summary="Stop a video for good", response_model=Video, responses=refusals(404, 409)
)
def cancel(id: VideoId, studio: Workshop) -> Response:
    """What is made of it stays; resume takes it up again."""
    return _wish(studio, id, "cancel")


@router.post(
    "/v1/videos/{id}/pause", summary="Stop a video for now", response_model=Video, responses=refusals(404, 409)
)
def pause(id: VideoId, studio: Workshop) -> Response:
    """After the step in work; nothing is lost but the section in work."""
    return _wish(studio, id, "pause")


@router.post(
    "/v1/videos/{id}/stop", summary="Let a video end early", response_model=Video, responses=refusals(404, 409)
)
def stop(id: VideoId, studio: Workshop) -> Response:
    """After the section in work; what is there then is the video."""
    return _wish(studio, id, "stop")


@router.post("/v1/videos/{id}/resume", summary="Go on with a video", response_model=Video, responses=refusals(404, 409))
def resume(id: VideoId, studio: Workshop) -> Response:
    """One that was paused, stopped, cancelled or failed; what is made of it is not made again."""
    return _said(studio, actions.resume(studio, id))


@router.post(
    "/v1/videos/{id}/reroll",
    summary="Make the rest of a video anew",
    response_model=Video,
    responses=refusals(404, 409),
)
async def reroll(id: VideoId, body: Rerolled, request: Request, studio: Workshop) -> Response:
    """Everything from a section of the order on, from another seed."""
    job = await heavily(request, actions.reroll, studio, id, body.section, body.seed)
    return await run_in_threadpool(_said, studio, job)


@router.post(
    "/v1/videos/{id}/branch",
    summary="Make another video from a section on",
    response_model=Video,
    responses=refusals(404, 409, 429),
)
async def branch(id: VideoId, body: Branched, request: Request, studio: Workshop) -> Response:
    """A new job, which shares the sections before."""
    job = await heavily(request, actions.branch, studio, id, body.section, body.seed, body.prompt)
    return await run_in_threadpool(_said, studio, job)


@router.post(
    "/v1/videos/{id}/move", summary="Move a video in the queue", response_model=Video, responses=refusals(404, 409)
)
def move(id: VideoId, body: Moved, studio: Workshop) -> Response:
    """Before another one, or to the end."""
    return _said(studio, actions.move(studio, id, body.before))


def _sent(request: Request, found: shown.Shown, immutable: bool = False) -> Response:
    """A file, or that whoever asks has it already."""
    keep = "private, immutable, max-age=31536000" if immutable else "private, no-cache"
    headers = {"etag": f'"{found.tag}"', "cache-control": keep}
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return FileResponse(
        found.path,
        media_type=found.media_type,
        filename=found.name,
        headers=headers,
        content_disposition_type="inline",
    )


async def _file(request: Request, studio: Studio, job: Job, variant: str, partial: bool) -> Response:
    return _sent(request, await heavily(request, shown.content, studio, job, variant, partial))


KNOWN: dict[int | str, dict[str, Any]] = {304: {"description": "It is as in If-None-Match"}}
FILES = {"video/mp4": {}, "image/webp": {}, "image/gif": {}, "application/zip": {}}


@router.get(
    "/v1/videos/{id}/content",
    summary="The file of a video",
    response_class=FileResponse,
    responses={
        200: {"content": FILES, "description": "The file"},
        206: {"content": FILES, "description": "The range of it that was asked for"},
        **KNOWN,
        416: {"content": {"text/plain": {}}, "description": "There is no such range"},
        **refusals(404, 409),
    },
)
async def content(
    id: VideoId,
    request: Request,
    studio: Workshop,
    variant: Literal["video", "thumbnail", "spritesheet", "gif", "frames"] = "video",
    partial: Annotated[Literal["0", "1"], Query(description="1: what is there of it already")] = "0",
) -> Response:
    """The MP4, or a picture of it."""
    job = await run_in_threadpool(studio.store.job, id)
    return await _file(request, studio, job, variant, partial == "1")


PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "A picture"}, **KNOWN}
Place = Annotated[int, InPath(ge=-1, le=10**6, description="In time; -1 is what comes before section 0")]


@router.get(
    "/v1/videos/{id}/source",
    summary="The start image of a video",
    response_class=FileResponse,
    responses={**PNG, **refusals(404)},
)
async def source(id: VideoId, request: Request, studio: Workshop) -> Response:
    """As the model sees it where that is known, else as it came."""
    job = await run_in_threadpool(studio.store.job, id)
    return _sent(request, await heavily(request, shown.source, studio, job))


@router.get(
    "/v1/videos/{id}/sections/{place}",
    summary="A section as a video of its own",
    response_class=FileResponse,
    responses={
        200: {"content": {"video/mp4": {}}, "description": "A fragmented MP4 from time 0"},
        206: {"content": {"video/mp4": {}}, "description": "A range of it"},
        **KNOWN,
        416: {"content": {"text/plain": {}}, "description": "There is no such range"},
        **refusals(404),
    },
)
async def section(
    id: VideoId,
    place: Place,
    request: Request,
    studio: Workshop,
    v: Annotated[str | None, Query(max_length=100, description="Whatever tells this one from another")] = None,
) -> Response:
    """To be appended to what a browser plays; with `v` it can be kept for ever."""
    job = await run_in_threadpool(studio.store.job, id)
    return _sent(request, await heavily(request, shown.piece, studio, job, place), immutable=v is not None)


@router.get(
    "/v1/videos/{id}/sections/{place}/last.png",
    summary="The last image of a section",
    response_class=FileResponse,
    responses={**PNG, **refusals(404)},
)
async def section_end(id: VideoId, place: Place, request: Request, studio: Workshop) -> Response:
    """To go on from elsewhere."""
    job = await run_in_threadpool(studio.store.job, id)
    return _sent(request, await heavily(request, shown.ending, studio, job, place))


STREAM = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events"}}
After = Annotated[int | None, Query(ge=0, lt=2**63, description="The number of the last event that is known")]


def _after(request: Request, after: int | None) -> int | None:
    last = request.headers.get("last-event-id", "")
    return min(int(last), 2**62) if last.isascii() and last.isdigit() else after


def _stream(studio: Studio, after: int, job: str | None) -> Response:
    headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
    body = studio.hub.stream(studio.store, after, job)
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)


@router.get(
    "/v1/events",
    summary="What happens to all videos",
    response_class=StreamingResponse,
    responses={**STREAM, **refusals()},
    tags=["events"],
)
async def events(request: Request, studio: Workshop, after: After = None) -> Response:
    """From now on, or after a number. Each event is `id`, `event` and `data`; see the types in the reference."""
    since = _after(request, after)
    return _stream(studio, await run_in_threadpool(studio.store.newest) if since is None else since, None)


@router.get(
    "/v1/videos/{id}/events",
    summary="What happens to a video",
    response_class=StreamingResponse,
    responses={**STREAM, **refusals(404)},
    tags=["events"],
)
async def events_of(id: VideoId, request: Request, studio: Workshop, after: After = None) -> Response:
    """From the beginning, or after a number."""
    await run_in_threadpool(studio.store.job, id)
    return _stream(studio, _after(request, after) or 0, id)
