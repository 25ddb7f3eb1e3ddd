"""Folders for work that nobody needs afterwards, not even when whoever made them was killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["scratch"]

PREFIX = "longtake-work-"
LOCK = "in-use"


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
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=home))
    with open(folder / "new", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system when the process dies
        (folder / "new").rename(folder / LOCK)  # which nobody sees before it is held
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(home: Path) -> None:
    for lock in home.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), open(lock) as file:  # somebody else's, or in use
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
