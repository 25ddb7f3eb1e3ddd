"""The training loop: one generator for every stage, from a codec to a next-frame-section model.

A stage says what is trained and what the loss of step n is; batches are a function of (seed, n). So a training that was
killed goes on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from longtake.errors import NumericsError
from longtake.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from longtake.training.config import LoopConfig
from longtake.training.optim import Optimizer, OptimizerSettings, rate

__all__ = ["Logged", "Saved", "Stage", "TrainingEvent", "train"]


@dataclass(frozen=True, slots=True)
class Logged:
    """Numbers of one moment: losses of the last steps, or of an evaluation."""

    step: int
    progress: float
    seconds: float
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint or the finished weights, on disk."""

    step: int
    path: Path


TrainingEvent = Logged | Saved


class Stage(ABC):
    """What is trained, on what, and how well it does."""

    @abstractmethod
    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The weights to train, by name."""

    @abstractmethod
    def loss(self, step: int) -> Mapping[str, Tensor]:
        """The losses of step `step`; the key "loss" is minimized. A function of (seed, step) and the weights alone."""

    @abstractmethod
    def evaluate(self, folder: Path, step: int) -> Mapping[str, float]:
        """Held-out numbers with the weights as they stand; may leave samples in `folder`."""

    @abstractmethod
    def export(self, folder: Path) -> Path:
        """Writes the weights as they stand as a model folder."""


def train(stage: Stage, config: LoopConfig, optimizer: OptimizerSettings, folder: Path) -> Iterator[TrainingEvent]:
    """Trains until `config.steps` or `config.seconds` is reached, whichever comes first.

    Goes on from the checkpoint in `folder` if there is one. Metrics go to `folder/metrics.jsonl`, the averaged weights to
    `folder/model` at the end.

    Raises:
        NumericsError: the loss stopped being finite; the last checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = Optimizer(stage.parameters(), optimizer)
    step, spent = 0, 0.0
    if (checkpoint := load_checkpoint(folder, device=_device(state))) is not None:
        state.load(checkpoint.state)
        step, spent = checkpoint.step, checkpoint.seconds
    began = time.monotonic() - spent
    saved_at, sums, count = time.monotonic(), {}, 0
    with open(folder / "metrics.jsonl", "a") as journal:
        while True:
            spent = time.monotonic() - began
            progress = max(step / config.steps, spent / config.seconds if config.seconds else 0.0)
            if progress >= 1.0:
                break
            losses = stage.loss(step)
            losses["loss"].backward()
            norm = state.step(step, rate(progress, config.warmup, config.hold))
            for name, value in {**losses, "gradient_norm": norm}.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float()
            step, count = step + 1, count + 1
            if step % config.log_every == 0:
                yield _log(journal, step, progress, time.monotonic() - began, {n: s / count for n, s in sums.items()})
                sums, count = {}, 0
            if step % config.evaluate_every == 0:
                yield _evaluate(stage, state, journal, folder, step, progress, time.monotonic() - began)
            if time.monotonic() - saved_at > config.checkpoint_seconds or step in config.checkpoint_steps:
                torch.accelerator.synchronize() if torch.accelerator.is_available() else None
                yield Saved(step, save_checkpoint(folder, Checkpoint(step, time.monotonic() - began, state.state())))
                saved_at = time.monotonic()
        yield Saved(step, save_checkpoint(folder, Checkpoint(step, time.monotonic() - began, state.state())))
        yield _evaluate(stage, state, journal, folder, step, 1.0, time.monotonic() - began)
        state.write(state.average)
        yield Saved(step, stage.export(folder / "model"))


def _device(state: Optimizer) -> str:
    return str(next(iter(state.master.values())).device)


def _evaluate(stage, state, journal, folder, step, progress, seconds) -> Logged:  # noqa: ANN001
    state.write(state.average)
    numbers = stage.evaluate(folder, step)
    state.write(state.master)
    return _log(journal, step, progress, seconds, numbers)


def _log(journal, step: int, progress: float, seconds: float, numbers) -> Logged:  # noqa: ANN001
    plain = {name: float(value) for name, value in numbers.items()}
    journal.write(
        json.dumps({"step": step, "progress": round(progress, 5), "seconds": round(seconds, 2), **plain}) + "\n"
    )
    journal.flush()
    if "loss" in plain and plain["loss"] != plain["loss"]:
        raise NumericsError(f"the loss is not a number at step {step}; the last checkpoint stays. Lower the rates")
    return Logged(step, progress, seconds, plain)
