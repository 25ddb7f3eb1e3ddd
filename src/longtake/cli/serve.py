"""`longtake serve`: the studio, in a browser and over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Serves the studio: a page that makes videos, and an HTTP interface with OpenAI's video calls.

    Jobs are kept in the home folder and survive the server. On any address but this machine's own a token is asked for.
    """

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is every one that this machine has."""
    port: int = 7860
    """The port to listen on."""
    model: tuple[str, ...] = ()
    """Models that can be asked for, the default one first: names or folders; default: embedded."""
    workers: int = 1
    """How many jobs are made at a time on this machine; 0: workers come from elsewhere, see longtake worker."""
    home: Path | None = None
    """Where jobs and uploads are kept; default: longtake/studio in the user's data folder."""
    token: str | None = None
    """What a caller must know; default: a new one where other machines can call, none where they cannot."""
    allow_origin: tuple[str, ...] = ()
    """Pages of other addresses that may call, such as https://studio.example."""
    loras: Path | None = None
    """A folder of LoRAs that can be asked for by file name."""
    open: bool = False
    """Open the page in a browser."""


def run(options: Options) -> int:
    """Serves until it is interrupted."""
    from longtake.web.serving import Served, serve

    o = options
    return serve(Served(o.host, o.port, o.model, o.workers, o.home, o.token, o.allow_origin, o.loras, o.open))
