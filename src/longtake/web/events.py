"""Server-sent events: each note is encoded once, and every listener reads the same bytes.

All wait for one bell. Who is behind what is kept here reads the store, so nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from threading import Lock
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from longtake.web.store import Note, Store

__all__ = ["Hub"]

T = TypeVar("T")
KEPT = 2048  # notes
QUIET = 15.0  # seconds until a comment shows that the line is alive


class Hub:
    """What happened lately, and a bell that rings when more did."""

    def __init__(self) -> None:
        self._lock, self._notes, self._bytes = Lock(), list[Note](), list[bytes]()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self.closed = False

    def open(self) -> None:
        """Rings in the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def publish(self, notes: Sequence[Note]) -> None:
        """Adds what happened, in order, from any thread."""
        with self._lock:
            self._notes += notes
            self._bytes += [note.encoded for note in notes]
            if len(self._notes) > 2 * KEPT:
                del self._notes[:-KEPT], self._bytes[:-KEPT]
        self.ring()

    def ring(self) -> None:
        """Wakes all who wait."""
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    def close(self) -> None:
        """Ends all streams."""
        self.closed = True
        self.ring()

    async def until(self, ready: Callable[[], T | None], seconds: float) -> T | None:
        """What `ready` gives as soon as it is something, asked in a thread whenever the bell rang; None in the end."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            bell = self._bell
            found = await run_in_threadpool(ready)
            left = end - loop.time()
            if found is not None or left <= 0 or self.closed:
                return found
            try:
                await asyncio.wait_for(bell.wait(), left)
            except TimeoutError:
                return await run_in_threadpool(ready)

    def _since(self, after: int, job: str | None) -> tuple[int, list[bytes]] | None:
        """The last number that is kept and the encoded notes after `after`; None if some of those are not kept."""
        with self._lock:
            if not self._notes or after < self._notes[0].seq - 1:
                return None
            at = bisect_right(self._notes, after, key=lambda note: note.seq)
            if job is None:
                chosen = self._bytes[at:]
            else:
                pairs = zip(self._notes[at:], self._bytes[at:], strict=True)
                chosen = [encoded for note, encoded in pairs if note.job == job]
            return self._notes[-1].seq, chosen

    async def stream(self, store: Store, after: int, job: str | None = None) -> AsyncIterator[bytes]:
        """What happened after a number, and then what happens."""
        yield b"retry: 1000\n\n"
        while not self.closed:
            bell = self._bell
            found = self._since(after, job)
            if found is None:
                newest = await run_in_threadpool(store.newest)
                if newest > after:
                    if self._since(after, job) is not None:
                        continue  # it came meanwhile: what all others read
                    notes = await run_in_threadpool(store.notes, after, job)
                    after = notes[-1].seq if notes else newest
                    if notes:
                        yield b"".join(note.encoded for note in notes)
                    continue
            elif found[0] > after:
                after = found[0]
                if found[1]:
                    yield b"".join(found[1])
                continue
            try:
                await asyncio.wait_for(bell.wait(), QUIET)
            except TimeoutError:
                yield b": \n\n"
