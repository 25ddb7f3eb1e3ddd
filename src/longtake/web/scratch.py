"""Folders for work that nobody needs afterwards, not even when whoever made them was killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout

__all__ = ["scratch"]

PREFIX, LOCK = "longtake-work-", ".lock"


@contextmanager
def scratch(home: Path | None = None) -> Iterator[Path]:
    """A new folder in `home`, or among the system's temporary files; gone afterwards, with those of killed processes.

    >>> with scratch() as folder:
    ...     (folder / "a.txt").write_text("a")
    1
    >>> folder.exists()
    False
    """
    home = home or Path(tempfile.gettempdir())
    home.mkdir(parents=True, exist_ok=True)
    _sweep(home)
    folder = home / f"{PREFIX}{token_hex(8)}"
    lock = folder.with_suffix(LOCK)
    try:
        with FileLock(lock, thread_local=False):  # released by the system when the process dies
            folder.mkdir(mode=0o700)  # which nobody sees before it is held
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.unlink(missing_ok=True)


def _sweep(home: Path) -> None:
    for lock in home.glob(f"{PREFIX}*{LOCK}"):
        folder = lock.with_suffix("")
        if folder.is_dir():
            with suppress(OSError, Timeout):  # somebody else's, or in use
                with FileLock(lock, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
