"""`longtake train STAGE`: from clips to a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Trains a codec, a plain video model (base) or a next-frame-section model (pack).

    The same command again goes on from the last checkpoint in OUTPUT. Clips are made by `python -m longtake.toybox`.
    """

    stage: Annotated[Literal["codec", "base", "pack"], tyro.conf.Positional]
    clips: Path
    """Folder of clips to train on."""
    held_out: Path
    """Folder of clips that are only measured on."""
    output: Path
    """Folder of the training: checkpoint, metrics.jsonl, samples, and at the end `model/`."""
    model: Path | None = None
    """Model to go on from, a folder or a known name: codec trains its codec on, base and pack its transformer."""
    codec: Path | None = None
    """Model folder whose codec takes the place of the model's own (base, pack)."""
    cache: Path | None = None
    """Folder that keeps latents and captions between trainings on the same clips with the same codec."""
    preset: str = "embedded"
    """A named config of that stage: embedded, tiny; for pack also corrupted, causal, ...; a wrong name lists them."""
    config: Path | None = None
    """A TOML file instead of a preset; every training writes its own as OUTPUT/config.toml."""
    seconds: float | None = None
    """Stop after that much time; the schedule of the rates then runs by the clock."""
    steps: int | None = None
    """Stop after that many steps."""
    batch: int | None = None
    """Samples of a step."""
    limit: int | None = None
    """Use at most that many clips."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""


def run(options: Options) -> int:
    """Trains, and prints the numbers to stderr as they come."""
    import sys

    import torch

    from longtake.training import Logged, prepare, train
    from longtake.training.config import resolve_config, write_config
    from longtake.training.parallel import join_world

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    world, device = join_world(device)
    config = resolve_config(options.stage, options.preset, options.config)
    config = config.with_limits(steps=options.steps, seconds=options.seconds, batch=options.batch)
    options.output.mkdir(parents=True, exist_ok=True)
    if world.rank == 0:
        write_config(config, options.output / "config.toml")
    stage = prepare(
        config,
        options.clips,
        options.held_out,
        options.model,
        device,
        options.limit,
        options.cache,
        options.codec,
        world,
    )
    try:
        for event in train(stage, config.loop, config.optimizer, options.output, world):
            if world.rank:
                continue
            if isinstance(event, Logged):
                numbers = "  ".join(f"{name} {value:.4g}" for name, value in event.numbers.items())
                print(f"step {event.step}  {event.progress:.1%}  {event.seconds:.0f} s  {numbers}", file=sys.stderr)
            else:
                print(f"step {event.step}  wrote {event.path}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0
