"""What the calls have at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ParamSpec, TypeVar

from anyio import to_thread
from fastapi import Depends
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import Response

from longtake.web.studio import Studio

__all__ = ["HEAVY", "VideoId", "Workshop", "answer", "heavily", "studio_of"]

HEAVY = 4  # pieces of work that take long, at a time
P = ParamSpec("P")
T = TypeVar("T")

VideoId = Annotated[str, InPath(description="A video's id", max_length=100)]


def studio_of(request: Request) -> Studio:
    """The studio of the application that was called."""
    return request.app.state.studio


Workshop = Annotated[Studio, Depends(studio_of)]


async def heavily(request: Request, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    """What work that takes long gives. Few do it at a time: threads are left for those who only ask."""
    return await to_thread.run_sync(partial(work, *args, **more), limiter=request.app.state.heavy)


def answer(data: Any, status: int = 200) -> Response:
    """JSON, as it is: what the studio says needs no second check."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return Response(body, status, media_type="application/json")
