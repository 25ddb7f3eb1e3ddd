"""The files of a job: a run folder as far as workers have sent it. What is in it is finished, and never made again."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Collection, Iterable
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool

from longtake.web.refusal import Refusal

__all__ = ["Folders", "Incoming", "link", "sent"]

# What a worker may read and write, by name.
NAMES = re.compile(
    r"config\.json|request\.json|manifest\.json|start\.png|(start|anchor)\.safetensors|last\.png|source\.safetensors"
    r"|output\.mp4|keys/\d{4,9}\.(png|safetensors)|sections/\d{4,9}\.safetensors|segments/\d{4,9}\.mp4|meters/\d{4,9}\.json"
    r"|source/\d{4,9}\.mp4"
)
INPUTS = re.compile(r"inputs/upload_[0-9a-f]{24}\.(png|mp4)")  # that it may only read
CHUNK = 1 << 20


def sent(name: str) -> bool:
    """True if a worker may write a file of that name."""
    return NAMES.fullmatch(name) is not None


class Folders:
    """The folders of a studio's jobs."""

    def __init__(self, home: Path) -> None:
        self.home, self.trash = home / "jobs", home / "trash"
        self._digests = dict[tuple[Path, int, int], str]()  # by path, size and time of change

    def of(self, job: str) -> Path:
        """The folder of a job."""
        return self.home / job

    def path(self, job: str, name: str, reading: bool = False) -> Path:
        """A file of a job that a worker may have.

        Raises:
            Refusal: there is no such name.
        """
        if not (sent(name) or (reading and INPUTS.fullmatch(name))):
            raise Refusal("not_found", f"a run folder has no file {name[:80]!r}; one is sections/0000.safetensors")
        return self.home / job / name

    def has(self, job: str, name: str) -> bool:
        """True if that file is there."""
        return (self.home / job / name).is_file()

    def numbered(self, job: str, folder: str, ending: str) -> list[int]:
        """The numbers of the files in one of a run's folders."""
        return sorted(int(path.stem) for path in (self.home / job / folder).glob(f"[0-9]*.{ending}"))

    def listing(self, job: str) -> list[dict[str, str | int]]:
        """The files that a worker needs to go on, with their digests. It blocks."""
        top, out = self.home / job, []
        for path in sorted(path for path in top.rglob("*") if path.is_file()):
            name = path.relative_to(top).as_posix()
            if (sent(name) and name != "output.mp4") or INPUTS.fullmatch(name):
                out.append({"name": name, "size": path.stat().st_size, "sha256": self.digest(path)})
        return out

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file, read once as long as it does not change."""
        stat = path.stat()
        key = path, stat.st_size, stat.st_mtime_ns
        if key not in self._digests:
            if len(self._digests) > 100_000:
                self._digests.clear()
            with open(path, "rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]

    async def receive(self, path: Path, chunks: AsyncIterator[bytes], digest: str | None, most: int) -> Incoming:
        """A file as it came in, whole, which has not its name yet.

        Raises:
            Refusal: it is too large, or not what its digest says.
        """
        incoming, got, size = Incoming(path), hashlib.sha256(), 0
        await run_in_threadpool(path.parent.mkdir, parents=True, exist_ok=True)
        try:
            file = await run_in_threadpool(open, incoming.unfinished, "wb")
            try:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > most:
                        raise Refusal("too_large", f"the file is larger than {most >> 20} MiB; that is no section's")
                    got.update(chunk)
                    await run_in_threadpool(file.write, chunk)
                await run_in_threadpool(_flush, file)
            finally:
                await run_in_threadpool(file.close)
            if digest is not None and got.hexdigest() != digest.lower():
                raise Refusal("invalid_request", "the file is not what X-Sha256 says; send it again", "X-Sha256")
        except BaseException:
            incoming.drop()
            raise
        return incoming

    def copy(self, job: str, other: str) -> None:
        """A folder with the same finished files, which are never written to again: they are shared, not copied."""
        top, target = self.home / job, self.home / other
        for path in sorted(path for path in top.rglob("*") if path.is_file()):
            name = path.relative_to(top).as_posix()
            if (sent(name) and name != "output.mp4") or INPUTS.fullmatch(name):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                link(path, target / name)
        target.mkdir(parents=True, exist_ok=True)

    def put_input(self, job: str, upload: Path, name: str) -> None:
        """Puts an upload into a job's folder."""
        path = self.home / job / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            link(upload, path)

    def forget_results(self, job: str) -> None:
        """Removes what was made of the sections: the finished video, and pictures of it."""
        top = self.home / job
        for name in ("output.mp4", "video.mp4"):
            (top / name).unlink(missing_ok=True)
        shutil.rmtree(top / "shown", ignore_errors=True)

    def remove(self, job: str) -> None:
        """Removes a folder: it is away at once, and then its room is free."""
        away = self.trash / f"{job}-{token_hex(4)}"
        self.trash.mkdir(exist_ok=True)
        try:
            os.replace(self.home / job, away)
        except FileNotFoundError:
            return
        shutil.rmtree(away, ignore_errors=True)

    def sweep(self, known: Collection[str], worked_on: Iterable[str]) -> None:
        """Removes what a killed server left: folders without a job, and half files of those that were worked on."""
        shutil.rmtree(self.trash, ignore_errors=True)
        for folder in self.home.glob("video_*"):
            if folder.name not in known:
                self.remove(folder.name)
        for job in worked_on:
            for leftover in (self.home / job).rglob("*.unfinished"):
                leftover.unlink(missing_ok=True)


class Incoming:
    """A file that is here, and not yet under its name."""

    def __init__(self, path: Path) -> None:
        self.path, self.unfinished = path, path.with_name(f"{path.name}.{token_hex(4)}.unfinished")

    def keep(self) -> None:
        """Gives it its name."""
        os.replace(self.unfinished, self.path)

    def drop(self) -> None:
        """Removes what has no name."""
        self.unfinished.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def link(path: Path, other: Path) -> None:
    """Gives a file another name, or copies it where that cannot be."""
    try:
        os.link(path, other)
    except OSError:  # another disk, or one without links
        shutil.copyfile(path, other)
