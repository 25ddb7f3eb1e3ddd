"""How a studio is set up."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LOOPBACK", "Limits", "Served", "Settings", "default_home"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Served:
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


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken in."""

    image_bytes: int = 32 << 20
    image_pixels: int = 64_000_000
    video_bytes: int = 512 << 20
    video_seconds: float = 600.0
    video_pixels: int = 8192 * 4352  # of one picture
    body_bytes: int = 1 << 20  # of JSON
    file_bytes: int = 8 << 30  # of one that a worker sends
    unused_days: float = 7.0  # that an upload is kept which no video was asked for with
    queued: int = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a studio is, who may use it, and what it offers."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 7860
    models: Mapping[str, str] = field(default_factory=lambda: {"embedded": "embedded"})  # id -> name or folder
    token: str | None = None
    origins: tuple[str, ...] = ()  # of foreign pages that may use it
    loras: Path | None = None  # a folder; its files may be asked for by name
    lease_seconds: float = 15.0
    limits: Limits = Limits()

    @property
    def local(self) -> bool:
        """True if only this machine reaches it."""
        return self.host in LOOPBACK

    @property
    def pass_cookie(self) -> str:
        """What a browser's cookie holds instead of the token."""
        return hmac.new((self.token or "").encode(), b"longtake studio", hashlib.sha256).hexdigest()

    @property
    def default_model(self) -> str:
        """The model of a request that names none."""
        return next(iter(self.models))

    @property
    def names(self) -> Mapping[str, str]:
        """What stands for paths of this machine in what is said to others."""
        folders = {str(Path(place).expanduser()): name for name, place in self.models.items() if os.sep in place}
        loras = {str(self.loras): "loras"} if self.loras else {}
        home = {f"{self.home / folder}{os.sep}": "" for folder in ("uploads", "jobs", "work")}
        return {**home, str(self.home): "the studio", str(self.home.resolve()): "the studio", **loras, **folders}


def default_home(environ: Mapping[str, str]) -> Path:
    """Where a studio keeps things if nothing is said."""
    data = environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "longtake" / "studio"
