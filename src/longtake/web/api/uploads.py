"""Files that are taken in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from longtake.web.api.bodies import file_of
from longtake.web.api.context import Workshop, answer, heavily
from longtake.web.api.shapes import Restored, Upload, refusals
from longtake.web.restore import restored

__all__ = ["router"]

router = APIRouter(tags=["uploads"])


def _form(name: str) -> dict[str, Any]:
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    schema = {"type": "object", "properties": {name: file}, "required": [name]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post(
    "/v1/uploads",
    summary="Take in an image or a video",
    response_model=Upload,
    responses=refusals(415),
    openapi_extra=_form("file"),
)
async def upload(request: Request, studio: Workshop) -> Response:
    """Images are kept as PNG, pixels alone; videos as they are. The id stands for the file in requests."""
    return answer(await file_of(request, "file", studio))


@router.get(
    "/v1/uploads/{id}",
    summary="The file of an upload",
    response_class=FileResponse,
    responses={200: {"content": {"image/png": {}, "video/mp4": {}}, "description": "The file"}, **refusals(404)},
)
def uploaded(id: Annotated[str, InPath(max_length=100)], studio: Workshop) -> Response:
    """An image as PNG, a video as it came."""
    about = studio.uploads.about(id)
    kind = {"image": "image/png", "video": "video/mp4"}[about["kind"]]
    return FileResponse(
        studio.uploads.path(id), media_type=kind, headers={"cache-control": "private, immutable, max-age=31536000"}
    )


@router.post(
    "/v1/restore",
    summary="The settings inside a video of ours",
    response_model=Restored,
    responses=refusals(415),
    openapi_extra=_form("video"),
)
async def restore(request: Request, studio: Workshop) -> Response:
    """What an MP4 was asked to be, and its first image as an upload; of another machine's files nothing is taken."""
    about = await file_of(request, "video", studio, ("video",))
    return answer(await heavily(request, restored, studio, about["id"]))
