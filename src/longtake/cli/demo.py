"""`longtake demo`: a video from nothing but this installation."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from longtake.errors import InputError

__all__ = ["Options", "examples", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Makes a 30 s video from an example image, on this machine, with the embedded model; nothing is downloaded."""

    example: int = 1
    """Which of the example images, from 1."""
    seconds: float = 30.0
    """How long."""
    order: str | None = None
    """vanilla (forward), inverted (from the end to the start image), anti_drifting or planned (endpoints first)."""
    seed: int = 0
    """Another seed, another video."""
    device: str = "auto"
    """cpu, cuda, ... or auto: a GPU where there is one."""
    output: Path = Path("longtake-demo.mp4")
    """The video."""


def examples() -> list[tuple[Path, str]]:
    """The example images that come with longtake, with their prompts."""
    from importlib.resources import files

    folder = Path(str(files("longtake"))) / "assets" / "examples"
    return [(path.with_suffix(".png"), path.read_text().strip()) for path in sorted(folder.glob("*.txt"))]


def run(options: Options) -> int:
    """Makes the video."""
    from longtake.cli.asked import Asked, make_video
    from longtake.cli.machine import Machine
    from longtake.pipeline import Request, Run
    from longtake.pipeline.request import read_request

    known = examples()
    if not 1 <= options.example <= len(known):
        raise InputError(f"there is no example {options.example}; there are 1 to {len(known)}")
    image, prompt = known[options.example - 1]
    print(f'"{prompt}"', file=sys.stderr)
    folder = options.output.parent / f"{options.output.stem}.run"
    if (folder / "config.json").exists():
        earlier = Run.open(folder)
        if isinstance(earlier.request, Request) and earlier.request.image in [path for path, _ in known]:
            with earlier.lock():
                shutil.rmtree(folder)  # the demo's own
    data = {"image": str(image), "prompt": prompt, "seconds": options.seconds, "seed": options.seed, "scale": 4}
    data |= {"order": options.order} if options.order else {}
    return make_video(read_request(data), options.output, Asked(machine=Machine(options.device)))
