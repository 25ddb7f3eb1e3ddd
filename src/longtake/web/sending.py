"""The worker's side of the wire: leases, files by their digests, events in order, and a heartbeat.

    main thread   put, tell, show --> [queue] --> courier: files, then the event that speaks of them
                  standing <--------------------- what it hears, or the heart, which beats every 3 s

A lease lives as long as the server hears of it. What cannot be delivered is tried again until the lease must be over.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict

from longtake.errors import LongtakeError

__all__ = ["Lease", "Line", "LostLeaseError", "Overrides", "Post", "RefusedError", "Standing"]

BEAT = 3.0  # seconds, or a fifth of a lease
PATIENCE = 10.0  # seconds for an answer; the lease is checked in between
BACKOFF = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds between tries; the last one repeats
BETWEEN = 0.1  # seconds from a step to the next one that is told
SMALL, CHUNK = 16 << 20, 1 << 20  # bytes of a file that is sent at once, of a piece of a larger one
AHEAD = 16  # deliveries that may wait: the files of about one section, so that a worker never runs far ahead

Order = Literal["go", "pause", "stop", "cancel"]


class LostLeaseError(Exception):
    """The job is somebody else's by now: the work is dropped."""


class RefusedError(LongtakeError):
    """The server cannot use what was sent; the message is its own."""


class _Said(BaseModel):
    """What the server says; a newer one may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FileNote(_Said):
    """A file of the run folder that the server has."""

    name: str
    size: int
    sha256: str


class Overrides(_Said):
    """What was changed since the request: by the place in the order of making."""

    prompts: dict[int, str] = {}
    seeds: dict[int, int] = {}


class Lease(_Said):
    """A job that is ours as long as the server hears of us."""

    lease: str
    seconds: float
    video: dict[str, Any]
    kind: Literal["generate", "extend"]
    request: dict[str, Any]
    overrides: Overrides = Overrides()
    files: tuple[FileNote, ...] = ()


class Standing(_Said):
    """What the server wants of a job now."""

    order: Order = "go"
    revision: int = 0
    prompts: dict[int, str] = {}


class Line:
    """A connection to a server. Every call is tried until it is answered or its time is over."""

    def __init__(self, server: str, token: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=server.rstrip("/"), headers=headers, timeout=PATIENCE)

    def lease(self, worker: str, wait: float) -> Lease | None:
        """The next job, after a while at most.

        Raises:
            httpx.TransportError: the server cannot be reached.
            RefusedError: it does not want us.
        """
        body = {"worker": worker, "wait": wait}
        answer = self.client.post("/v1/worker/lease", json=body, timeout=wait + PATIENCE)
        if answer.status_code == 204:
            return None
        if answer.status_code >= 500:
            raise httpx.ReadError(f"the server answers {answer.status_code}")
        return Lease.model_validate_json(_good(answer).content)

    def close(self) -> None:
        """Hangs up."""
        self.client.close()


def _good(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    try:
        error = answer.json()["error"]
        code, message = str(error.get("code")), str(error.get("message"))
    except (ValueError, KeyError, TypeError, AttributeError):
        code, message = "", f"the server answers {answer.status_code}"
    if code == "lease_lost":
        raise LostLeaseError(message)
    raise RefusedError(message)


class Post:
    """Sends what belongs to one lease, in order and in the background, and hears what the server wants."""

    def __init__(self, line: Line, lease: Lease) -> None:
        self.lease = lease
        self.standing = Standing(revision=(lease.video.get("longtake") or {}).get("revision") or 0)
        self.known = {note.name: note.sha256 for note in lease.files}  # that the server has
        self._client, self._base = line.client, f"/v1/worker/leases/{quote(lease.lease)}"
        self._queue = queue.Queue[Callable[[], object]](maxsize=AHEAD)
        self._newest = dict[str, dict[str, Any]]()  # that was shown of each type
        self._shown = dict[str, float]()  # when
        self._heard = time.monotonic()
        self._trouble: Exception | None = None
        self._saying = threading.Lock()  # an answer that is older than the one before it is no news
        self._closed = threading.Event()

    @contextmanager
    def open(self) -> Iterator[Post]:
        """Beats as long as the context lasts."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self._carry, self._beat)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._closed.set()
            for thread in threads:
                thread.join()

    def check(self) -> None:
        """Raises what went wrong in the background.

        Raises:
            LostLeaseError: the job is not ours any more.
            RefusedError: the server cannot use what was sent.
        """
        if self._trouble:
            raise self._trouble

    def fetch(self, name: str, path: Path) -> None:
        """Brings a file of the server, and checks it.

        Raises:
            LostLeaseError: the job is not ours any more.
            RefusedError: the file does not arrive whole.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in BACKOFF:
            if self._call("GET", f"/files/{quote(name)}", into=path) == self.known[name]:
                return
        raise RefusedError(f"{name} does not arrive whole")

    def put(self, name: str, path: Path) -> bool:
        """Lets the server have a file, unless it has just that one. True if it does not have it yet."""
        small = path.read_bytes() if path.stat().st_size <= SMALL else None  # as it is now: some are written again
        digest = hashlib.sha256(small).hexdigest() if small is not None else _digest(path)
        if self.known.get(name) == digest:
            return False
        self.known[name] = digest
        call, head = f"/files/{quote(name)}", {"X-Sha256": digest}
        self._enqueue(
            lambda: self._call("PUT", call, headers=head, content=lambda: _chunks(path) if small is None else small)
        )
        return True

    def tell(self, event: dict[str, Any]) -> None:
        """An event that comes after everything that was put before it."""
        self._enqueue(lambda: self._say([event]))

    def show(self, event: dict[str, Any]) -> None:
        """An event that counts only while it is the newest of its type; it may be left out."""
        kind, at = event["type"], time.monotonic()
        if at - self._shown.get(kind, 0.0) < BETWEEN or self._queue.full():
            return
        self._newest[kind], self._shown[kind] = event, at
        self._enqueue(lambda: self._say([event]) if self._newest[kind] is event else None)

    def flush(self) -> None:
        """Waits until all is delivered.

        Raises:
            LostLeaseError: the job is not ours any more.
            RefusedError: the server cannot use what was sent.
        """
        done = threading.Event()
        self._enqueue(done.set)
        while not done.wait(0.05):
            self.check()
        self.check()

    def end(self, status: str, error: dict[str, Any] | None = None, peak_memory_mb: int | None = None) -> None:
        """Gives the job back, as the last thing.

        Raises:
            LostLeaseError: the job is not ours any more.
        """
        body = {"status": status, "error": error, "peak_memory_mb": peak_memory_mb}
        self._call("POST", "/end", json=body)

    def _enqueue(self, delivery: Callable[[], object]) -> None:
        while True:
            self.check()
            try:
                self._queue.put(delivery, timeout=0.1)
                return
            except queue.Full:
                continue

    def _carry(self) -> None:
        """The courier. What goes wrong is kept for the main thread."""
        try:
            while not self._closed.is_set():
                with suppress(queue.Empty):
                    self._queue.get(timeout=0.1)()
        except Exception as error:  # whatever it is, the main thread is to know
            self._trouble = error

    def _beat(self) -> None:
        beat = min(BEAT, self.lease.seconds / 5)
        try:
            while not self._closed.wait(max(0.01, self._heard + beat - time.monotonic())):
                if time.monotonic() - self._heard >= beat:
                    self._say([])
        except Exception as error:  # whatever it is, the main thread is to know
            self._trouble = error

    def _say(self, events: list[dict[str, Any]]) -> None:
        with self._saying:
            self.standing = Standing.model_validate_json(self._call("POST", "/events", json=events))
            self._heard = time.monotonic()

    def _call(
        self,
        method: str,
        path: str,
        into: Path | None = None,
        content: Callable[[], bytes | Iterator[bytes]] = bytes,
        **said: Any,
    ) -> str:
        """An answer, or the digest of one that went into a file. Who is away is asked until the lease must be over.

        `content` is asked for what is sent, once for each try.
        """
        tries = 0
        while True:
            if isinstance(self._trouble, LostLeaseError):
                raise self._trouble
            try:
                body = said if "json" in said else {**said, "content": content()}
                with self._client.stream(method, self._base + path, **body) as answer:
                    if answer.is_success and into:
                        return _written(answer, into)
                    answer.read()
                    if answer.status_code < 500:
                        return _good(answer).text
            except httpx.TransportError:
                pass
            if time.monotonic() - self._heard > self.lease.seconds:
                self._trouble = LostLeaseError("the server was away for longer than the lease")
                raise self._trouble
            if self._closed.wait(BACKOFF[min(tries, len(BACKOFF) - 1)]):
                raise LostLeaseError("the work is dropped")
            tries += 1


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(answer: httpx.Response, path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for chunk in answer.iter_bytes(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
