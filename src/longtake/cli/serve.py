"""`longtake serve`: the studio, in a browser and over HTTP."""

from __future__ import annotations

from longtake.web.settings import Served as Options

__all__ = ["Options", "run"]


def run(options: Options) -> int:
    """Serves until it is interrupted."""
    from longtake.web.serving import serve

    return serve(options)
