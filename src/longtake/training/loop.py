"""The training loop: one generator for every stage, from a codec to a next-frame-section model.

A stage says what is trained and what the loss of step n is; batches are a function of (seed, n). So a training that was
killed goes on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from longtake.errors import NumericsError, RunError
from longtake.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from longtake.training.config import LoopConfig
from longtake.training.optim import Optimizer, OptimizerSettings, rate
from longtake.training.parallel import ALONE, World

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

    found: Mapping[str, float] = MappingProxyType({})  # while it was prepared; written before the first step

    @abstractmethod
    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The weights to train, by name."""

    @abstractmethod
    def loss(self, step: int) -> Mapping[str, Tensor]:
        """The losses of step `step`; the key "loss" is minimized.

        A function of (seed, step), the weights and the memory alone.
        """

    def memory(self) -> Mapping[str, Tensor]:
        """What steps leave behind for later ones: tensors that are changed in place, kept in checkpoints."""
        return {}

    @abstractmethod
    def evaluate(self, folder: Path, step: int) -> Mapping[str, float]:
        """Held-out numbers with the weights as they stand; may leave samples in `folder`."""

    @abstractmethod
    def export(self, folder: Path) -> Path:
        """Writes the weights as they stand as a model folder."""


def train(
    stage: Stage, config: LoopConfig, optimizer: OptimizerSettings, folder: Path, world: World = ALONE
) -> Iterator[TrainingEvent]:
    """Trains until `config.steps` or `config.seconds` is reached, whichever comes first.

    Goes on from the checkpoint in `folder` if there is one. Metrics go to `folder/metrics.jsonl`, the averaged weights
    to `folder/model` at the end. In a world of several processes all of them run this; the first one writes.

    Raises:
        NumericsError: the loss stopped being finite; the last checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = Optimizer(stage.parameters(), optimizer)
    world.same_start(state.master.values())
    step, spent = 0, 0.0
    if (checkpoint := load_checkpoint(folder, device=_device(state))) is not None:
        state.load(checkpoint.state)
        _recall(stage, checkpoint, folder)
        step, spent = checkpoint.step, checkpoint.seconds
    state.write(state.master)
    clock = _Clock(spent, config.seconds, world, _device(state))
    journal = _Journal(folder / "metrics.jsonl", writes=world.rank == 0)
    if world.rank == 0 and step == 0 and stage.found:
        yield journal.write(0, 0.0, clock.seconds, stage.found)
    while (progress := max(step / config.steps, clock.progress(step))) < 1.0:
        losses = stage.loss(step)
        losses["loss"].backward()
        world.average_gradients(state.parameters.values())
        norm = state.step(step, rate(step, progress, config.warmup, config.hold))
        journal.add({**losses, "gradient_norm": norm})
        step += 1
        if step % config.log_every == 0:
            yield journal.flush(step, progress, clock.seconds)
        if world.rank == 0 and step % config.evaluate_every == 0:
            yield journal.write(step, progress, clock.seconds, _evaluate(stage, state, folder, step))
        if world.rank == 0 and (clock.due(config.checkpoint_seconds) or step in config.checkpoint_steps):
            yield _save(stage, state, folder, step, clock.seconds)
    if world.rank == 0:
        yield _save(stage, state, folder, step, clock.seconds)
        yield journal.write(step, 1.0, clock.seconds, _evaluate(stage, state, folder, step))
        state.write(state.average)
        yield Saved(step, stage.export(folder / "model"))
    world.leave()


class _Clock:
    """Time spent in this training, over all its sittings; every process sees that of the first."""

    def __init__(self, spent: float, limit: float, world: World, device: str) -> None:
        self.began, self.limit = time.monotonic() - spent, limit
        self.world, self.device = world, device
        self.saved, self.known = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def progress(self, step: int, every: int = 10) -> float:
        """The share of the time limit that is spent, as of the last step that is a multiple of `every`."""
        if self.limit and (step % every == 0 or not self.known):
            self.known = self.world.agree(self.seconds / self.limit, self.device)
        return self.known

    def due(self, interval: float) -> bool:
        """True once in each interval."""
        if time.monotonic() - self.saved < interval:
            return False
        self.saved = time.monotonic()
        return True


class _Journal:
    """Means of numbers between two lines of metrics.jsonl."""

    def __init__(self, path: Path, writes: bool) -> None:
        self.path, self.writes = path, writes
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, numbers: Mapping[str, Tensor]) -> None:
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
        self.count += 1

    def flush(self, step: int, progress: float, seconds: float) -> Logged:
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return self.write(step, progress, seconds, means)

    def write(self, step: int, progress: float, seconds: float, numbers: Mapping[str, float]) -> Logged:
        if self.writes:
            row = {"step": step, "progress": round(progress, 5), "seconds": round(seconds, 2), **numbers}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if not math.isfinite(numbers.get("loss", 0.0)):
            raise NumericsError(f"the loss is not a number at step {step}; the last checkpoint stays. Lower the rates")
        return Logged(step, progress, seconds, numbers)


def _save(stage: Stage, state: Optimizer, folder: Path, step: int, seconds: float) -> Saved:
    memory = {f"memory/{name}": tensor for name, tensor in stage.memory().items()}
    return Saved(step, save_checkpoint(folder, Checkpoint(step, seconds, {**state.state(), **memory})))


def _recall(stage: Stage, checkpoint: Checkpoint, folder: Path) -> None:
    for name, tensor in stage.memory().items():
        kept = checkpoint.state.get(f"memory/{name}")
        if kept is None or kept.shape != tensor.shape:
            raise RunError(f"{folder}: the checkpoint is of a training without this {name}; start in another folder")
        tensor.copy_(kept)


def _device(state: Optimizer) -> str:
    return str(next(iter(state.master.values())).device)


def _evaluate(stage: Stage, state: Optimizer, folder: Path, step: int) -> Mapping[str, float]:
    """The stage's own numbers, with the averaged weights in place."""
    state.write(state.average)
    numbers = {name: float(value) for name, value in stage.evaluate(folder, step).items()}
    state.write(state.master)
    return numbers
