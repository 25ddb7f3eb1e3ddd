"""The application: the calls, the page, and what runs beside them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from longtake.errors import LongtakeError
from longtake.web import queue
from longtake.web.api import system, uploads, videos, worker
from longtake.web.api.context import HEAVY, answer
from longtake.web.guard import Guard
from longtake.web.refusal import STATUS, Code, Refusal, sentence
from longtake.web.settings import Settings
from longtake.web.studio import Studio

__all__ = ["create_app"]

STATIC = Path(__file__).parent / "static"
EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"  # start images with their prompts
TICK, TIDY = 0.5, 3600.0  # seconds
LOG = logging.getLogger("longtake.web")
BY_STATUS: dict[int, Code] = {status: code for code, status in reversed(STATUS.items())}


def create_app(settings: Settings, leaving: Callable[[], bool] = lambda: False) -> FastAPI:
    """The studio as an ASGI application; `leaving` says that the server wants to end, so that streams do."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio = await run_in_threadpool(Studio, settings)
        app.state.studio, app.state.heavy = studio, CapacityLimiter(HEAVY)
        studio.hub.open()
        studio.engine.start()
        ticking = asyncio.create_task(_tick(studio, leaving))
        try:
            yield
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
            await run_in_threadpool(studio.close)

    app = FastAPI(
        title="longtake studio",
        summary="Long videos, section by section",
        version=version("longtake"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    for module in (system, uploads, videos, worker):
        app.include_router(module.router)
    app.mount("/examples", StaticFiles(directory=EXAMPLES), name="examples")
    if STATIC.is_dir():
        app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(LongtakeError, _could_not)
    app.add_exception_handler(RequestValidationError, _misread)
    app.add_exception_handler(HTTPException, _unserved)
    app.add_middleware(_guarded, settings=settings)
    return app


def _guarded(app: ASGIApp, settings: Settings) -> Guard:
    return Guard(app, settings)


async def _tick(studio: Studio, leaving: Callable[[], bool]) -> None:
    """Takes lost leases back, lets go of old uploads, and ends the streams when the server is to end."""
    tidied = -math.inf
    while True:
        await asyncio.sleep(TICK)
        if leaving():
            studio.hub.close()
        try:
            await run_in_threadpool(queue.expire, studio)
            if time.monotonic() > tidied + TIDY:
                tidied = time.monotonic()
                await run_in_threadpool(studio.uploads.tidy)
        except Exception:
            LOG.exception("lost leases or old uploads could not be taken back")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer(error.data, error.status)


def _could_not(request: Request, error: Exception) -> Response:
    text = request.app.state.studio.scrubbed(sentence(str(error)))
    return _refused(request, Refusal("invalid_request", text))


def _misread(request: Request, error: Exception) -> Response:
    """FastAPI's own complaint, in our shape: the first thing that is wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    names = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    message = first["msg"].removeprefix("Value error, ")
    text = f"{'.'.join(names) or 'the body'}: {message[:1].lower()}{message[1:]}"
    return _refused(request, Refusal("invalid_request", text, names[0] if names else None))


def _unserved(request: Request, error: Exception) -> Response:
    """What Starlette refuses: unknown places, methods, broken forms."""
    assert isinstance(error, HTTPException)
    code = BY_STATUS.get(error.status_code, "invalid_request")
    says = {
        404: "there is nothing here; /openapi.json lists what there is",
        405: "this cannot be done here; /openapi.json lists what can",
    }
    message = says.get(error.status_code, sentence(str(error.detail)))
    response = answer(Refusal(code, message).data, error.status_code)
    response.headers.update(error.headers or {})
    return response
