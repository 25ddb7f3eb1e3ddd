"""What the calls have at hand."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import Response

from longtake.web.studio import Studio

__all__ = ["VideoId", "Workshop", "answer", "studio_of"]

VideoId = Annotated[str, InPath(description="A video's id", max_length=100)]


def studio_of(request: Request) -> Studio:
    """The studio of the application that was called."""
    return request.app.state.studio


Workshop = Annotated[Studio, Depends(studio_of)]


def answer(data: Any, status: int = 200) -> Response:
    """JSON, as it is: what the studio says needs no second check."""
    import json

    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")
