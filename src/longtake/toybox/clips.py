"""Many clips, made by many processes, as files: raw images (.npy), and a line of truth for each (.jsonl)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from longtake.errors import OutputError
from longtake.toybox.clip import Studio
from longtake.toybox.difficulty import difficulty_named
from longtake.toybox.render import load_mujoco
from longtake.toybox.truth import read_truths, write_truths

__all__ = ["Progress", "write_clips", "write_sheet"]

SHARD = 8  # clips in a file, at most: what an interruption costs each process


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the writing is."""

    clips: int
    of: int
    images: int
    seconds: float

    def __str__(self) -> str:
        rate = self.images / max(self.seconds, 1e-9)
        return f"{self.clips}/{self.of} clips, {self.images} images, {self.seconds:.0f} s, {rate:.0f} images/s"


@dataclass(frozen=True, slots=True)
class _Share:
    """What one task makes: a file."""

    path: str
    seeds: tuple[int, ...]
    difficulty: str
    images: int
    height: int
    width: int
    fps: int


def _write_share(share: _Share) -> int:
    """Writes the images and then the truths, so that a file with its truths is whole."""
    path = Path(share.path)
    shape = (len(share.seeds), share.images, share.height, share.width, 3)
    unfinished = path.with_suffix(".unfinished")
    truths = []
    with Studio() as studio:
        pixels = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        for place, seed in enumerate(share.seeds):
            clip = studio.clip(seed, share.difficulty, share.images, share.height, share.width, share.fps)
            pixels[place] = clip.images
            truths.append(clip.truth)
        pixels.flush()
    os.replace(unfinished, path)
    text = path.with_suffix(".jsonl")
    write_truths(text.with_suffix(".part"), truths)
    os.replace(text.with_suffix(".part"), text)
    return len(share.seeds)


def _is_written(share: _Share) -> bool:
    path = Path(share.path)
    if not (path.exists() and path.with_suffix(".jsonl").exists()):
        return False
    shape = np.load(path, mmap_mode="r").shape
    truths = read_truths(path.with_suffix(".jsonl"))
    wanted = (len(share.seeds), share.images, share.height, share.width, 3)
    found = {(t.difficulty, t.fps) for t in truths}
    if shape != wanted or found != {(share.difficulty, share.fps)} or tuple(t.seed for t in truths) != share.seeds:
        raise OutputError(f"{path}: holds other clips ({shape}, {found}) than those asked for; choose another folder")
    return True


def write_clips(
    folder: Path,
    seeds: Sequence[int],
    difficulty: str = "kind",
    images: int = 217,
    height: int = 96,
    width: int = 160,
    fps: int = 12,
    workers: int = 1,
    report: Callable[[Progress], None] | None = None,
) -> tuple[Path, ...]:
    """Writes a clip for every seed and gives the paths of the image files, in the order of the seeds.

    Each file is uint8 "clips images H W 3" and has a .jsonl of the same name. Files that are already there are
    kept, so that the same call again goes on where it was stopped. Names and contents do not depend on `workers`.

    Raises:
        ConfigError: MuJoCo is missing, or there is no such difficulty.
        OutputError: the folder cannot be written, or holds other clips.
    """
    load_mujoco()
    difficulty_named(difficulty)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}") from error
    size = max(1, min(SHARD, -(-len(seeds) // 16)))
    pieces = [tuple(seeds[k : k + size]) for k in range(0, len(seeds), size)]
    shares = [
        _Share(str(folder / f"{difficulty}-{piece[0]:08d}.npy"), piece, difficulty, images, height, width, fps)
        for piece in pieces
    ]
    waiting = [s for s in shares if not _is_written(s)]
    done = len(seeds) - sum(len(s.seeds) for s in waiting)
    began, fresh = time.monotonic(), 0
    # Each process starts afresh: an OpenGL context does not survive a fork.
    with ProcessPoolExecutor(min(workers, max(1, len(waiting))), get_context("spawn")) as pool:
        try:
            for task in as_completed([pool.submit(_write_share, s) for s in waiting]):
                fresh += task.result()
                if report:
                    report(Progress(done + fresh, len(seeds), fresh * images, time.monotonic() - began))
        except OSError as error:
            pool.shutdown(cancel_futures=True)
            raise OutputError(f"{folder}: {error.strerror}; files finished before stay") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tuple(Path(s.path) for s in shares)


def write_sheet(paths: Sequence[Path], picture: Path, rows: int = 10, columns: int = 8, gap: int = 2) -> None:
    """A contact sheet: a row for each of the first clips, with images spread over its time. Needs Pillow."""
    from PIL import Image

    lines = []
    for path in paths:
        for clip in np.load(path, mmap_mode="r"):
            if len(lines) == rows:
                break
            chosen = clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)]
            lines.append(
                np.concatenate([np.pad(c, ((0, gap), (0, gap), (0, 0)), constant_values=255) for c in chosen], axis=1)
            )
    Image.fromarray(np.concatenate(lines)).save(picture)
