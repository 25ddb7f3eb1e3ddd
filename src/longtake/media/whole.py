"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.error

from longtake.errors import OutputError

__all__ = ["whole"]


@contextmanager
def whole(path: Path, trouble: str = "could not be written") -> Iterator[Path]:
    """A path to write to, whose file takes the name `path` when it is complete and safe on disk.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole(folder / "a.txt") as unfinished:
    ...     print(unfinished.name, unfinished.write_text("all of it"))
    a.txt.unfinished 9
    >>> [path.name for path in folder.iterdir()]
    ['a.txt']

    Raises:
        OutputError: the disk is full or the folder cannot be written; a file of that name stays as it was.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        yield unfinished
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, av.error.FFmpegError) as error:
        raise OutputError(f"{path}: {trouble} ({getattr(error, 'strerror', None) or error})") from error
    finally:
        unfinished.unlink(missing_ok=True)
