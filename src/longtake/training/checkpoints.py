"""A training that can be killed: its whole state in one file that is either there or not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longtake.errors import OutputError, RunError

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

NAME = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training stands: steps taken, seconds spent in them, and the optimizer's tensors."""

    step: int
    seconds: float
    state: Mapping[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes the checkpoint beside the old one, then puts it in its place in one move.

    Raises:
        OutputError: the disk is full or the folder cannot be written; the old checkpoint is untouched.
    """
    path, unfinished = folder / NAME, folder / f"{NAME}.unfinished"
    note = {"longtake": json.dumps({"step": checkpoint.step, "seconds": checkpoint.seconds})}
    try:
        save_file({n: t.contiguous() for n, t in checkpoint.state.items()}, unfinished, metadata=note)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: the checkpoint could not be written ({error}); the one before it is kept"
        ) from error
    return path


def load_checkpoint(folder: Path, device: str = "cpu") -> Checkpoint | None:
    """The checkpoint of a training folder, or None where none was written yet.

    Raises:
        RunError: the file is there but is not a checkpoint.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device=device) as file:
            note = json.loads((file.metadata() or {})["longtake"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: not a checkpoint of longtake ({error}); move it away to start anew") from error
    return Checkpoint(note["step"], note["seconds"], state)
