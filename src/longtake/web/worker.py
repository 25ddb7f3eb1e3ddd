"""A worker: leases a job from a server, makes it, and asks for the next one."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import httpx
import torch

from longtake.backbones.running import Runtime
from longtake.errors import InputError, LongtakeError
from longtake.pipeline.shelf import Shelf
from longtake.web.scratch import scratch
from longtake.web.sending import BACKOFF, Lease, Line, LostLeaseError, Post
from longtake.web.working import failure_of, peak_memory, work

__all__ = ["Worker", "WorkerSettings", "until_told"]

WAIT = 20.0  # seconds that the server keeps us waiting for a job, at most
LOG = logging.getLogger("longtake.worker")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs to know."""

    server: str  # its address
    name: str  # that the server shows
    token: str = ""
    scratch: Path | None = None  # where runs are made; a temporary folder if there is none
    runtime: Runtime = field(default_factory=Runtime)
    once: bool = False  # leave after a job, or when there is none


class LeaveError(BaseException):
    """Raised in the main thread by a signal that comes while there is nothing to lose."""


class Worker:
    """Makes job after job. One model stays loaded between jobs."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings, self.shelf = settings, Shelf()
        self.leaving = threading.Event()
        self.idle = False

    def run(self) -> None:
        """Works until it is told to leave.

        Raises:
            InputError: it would leave after one job, and the server cannot be reached.
        """
        line, tries = Line(self.settings.server, self.settings.token), 0
        try:
            while not self.leaving.is_set():
                try:
                    lease = self._next(line)
                    tries = 0
                except httpx.TransportError as error:
                    if self.settings.once:
                        raise InputError(f"--server {self.settings.server} cannot be reached ({error})") from error
                    if tries == 0:
                        LOG.warning("%s cannot be reached (%s); trying again", self.settings.server, error)
                    lease, tries = None, tries + 1
                    self.leaving.wait(BACKOFF[min(tries, len(BACKOFF)) - 1])
                    continue
                if lease:
                    self._serve(line, lease)
                if self.settings.once:
                    return
        except LeaveError:
            pass
        finally:
            line.close()

    def leave(self) -> None:
        """Lets the work end at its next step, or the waiting at once. Only to be called in the main thread."""
        self.leaving.set()
        if self.idle:
            raise LeaveError

    def _next(self, line: Line) -> Lease | None:
        self.idle = True
        try:
            return line.lease(self.settings.name, 0.0 if self.settings.once else WAIT)
        finally:
            self.idle = False

    def _serve(self, line: Line, lease: Lease) -> None:
        """Makes one job. Whatever becomes of it, the worker is ready for the next one afterwards."""
        video, post = lease.video.get("id", "?"), Post(line, lease)
        LOG.info("%s begins", video)
        try:
            with scratch(self.settings.scratch) as folder, post.open():
                try:
                    ended = work(post, folder, self.shelf, self.settings.runtime, self.leaving.is_set)
                except LostLeaseError:
                    raise
                except LongtakeError as error:
                    LOG.info("%s failed: %s", video, error)
                    self._fail(post, error)
                except Exception as error:
                    if isinstance(error, MemoryError | torch.OutOfMemoryError):
                        self.shelf.clear()
                    LOG.exception("%s failed", video)
                    self._fail(post, error)
                else:
                    post.end(ended.status, peak_memory_mb=ended.peak_memory_mb)
                    LOG.info("%s: %s", video, ended.status)
        except LostLeaseError as error:
            LOG.info("%s is dropped: %s", video, error)
        except LongtakeError as error:
            LOG.warning("%s cannot be ended: %s", video, error)

    @staticmethod
    def _fail(post: Post, error: Exception) -> None:
        with suppress(Exception):  # what was made before is kept, unless just that cannot be sent
            post.flush()
        post.end("failed", asdict(failure_of(error)), peak_memory())


@contextmanager
def until_told(worker: Worker) -> Iterator[None]:
    """While this lasts, SIGTERM and SIGINT let the worker leave."""

    def leave(number: int, frame: FrameType | None) -> None:
        worker.leave()

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
