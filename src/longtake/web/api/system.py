"""How the server is, which models there are, and who may use it."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from longtake.web.api.context import Workshop, answer, heavily
from longtake.web.api.shapes import Health, Models, refusals
from longtake.web.guard import COOKIE, knows
from longtake.web.models import table
from longtake.web.refusal import Refusal

__all__ = ["router"]

router = APIRouter(tags=["system"])


@router.get("/health", summary="Whether the server serves", response_model=Health, responses=refusals())
def health(studio: Workshop) -> Response:
    """Answers before the engine is there, and says whether it is."""
    return answer(
        {
            "status": "ok",
            "engine": studio.engine.state,
            "version": version("longtake"),
            "workers": studio.workers(),
            "queued": studio.store.count("queued"),
            "authorization": "bearer" if studio.settings.token else "none",
        }
    )


@router.get("/v1/models", summary="The models that can be asked for", response_model=Models, responses=refusals())
async def models(request: Request, studio: Workshop) -> Response:
    """The models of this server, the default one first."""
    await heavily(request, studio.engine.wait)
    return answer({"object": "list", "data": await heavily(request, table, studio.settings)})


@router.post(
    "/v1/session",
    summary="Have a browser remember the token",
    status_code=204,
    response_class=Response,
    responses=refusals(),
)
def session(request: Request, studio: Workshop) -> Response:
    """Sets a cookie, for what a page cannot send a header with: events, pictures, videos."""
    token = studio.settings.token
    if token is not None and not knows(request.headers, token):
        raise Refusal("unauthorized", "this is not the token; longtake serve printed it when it started")
    response = Response(status_code=204)
    if token is not None:
        response.set_cookie(COOKIE, studio.settings.pass_cookie, httponly=True, samesite="strict", path="/")
    return response
