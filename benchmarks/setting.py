"""What the benchmarks of a model on clips share: what they ask for, how they start a video, how they look at it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from longtake.backbones import Backbone, load_backbone
from longtake.backbones.pixels import to_images, to_pixels
from longtake.plan import Plan, make_plan, order_of
from longtake.schedule import parse
from longtake.training.clips import Clips

__all__ = ["arguments", "decoded", "device_name", "open_model", "plan_of", "starts"]


def arguments(description: str | None, output: str, count: str = "clips") -> argparse.ArgumentParser:
    """A parser of the options that all of them have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32, help=count)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path(output))
    return parser


def open_model(options: argparse.Namespace) -> Backbone:
    """The model on its device, in bfloat16 on a GPU; the output folder is there afterwards."""
    options.output.mkdir(parents=True, exist_ok=True)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    return load_backbone(options.model, device=options.device, dtype=dtype)


def device_name(options: argparse.Namespace) -> str:
    """Which machine the figures are of."""
    if options.device == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"


def plan_of(backbone: Backbone, sections: int, order: str, schedule: str = "") -> Plan:
    """The plan of a video of so many sections, by the model's own schedule of that order or by another."""
    found = parse(schedule or backbone.settings.schedules[order_of(order)])
    return make_plan(found, 1 + found.generated * sections, order, backbone.settings.gaps)


@torch.no_grad()
def starts(backbone: Backbone, clips: Clips, chosen: Sequence[int], images: int = 1) -> torch.Tensor:
    """The latents of the clips' first images, or of as many as are asked for."""
    pixels = to_pixels(clips.batch(list(chosen), [0] * len(chosen), images), backbone.device, backbone.dtype)
    return backbone.codec.encode(pixels).to(backbone.dtype)


@torch.no_grad()
def decoded(backbone: Backbone, latents: torch.Tensor) -> list[np.ndarray]:
    """The videos of latents, a few at a time on a GPU and one by one elsewhere, which takes less memory."""
    parts = latents.split(16 if latents.is_cuda else 1)
    return [video for part in parts for video in to_images(backbone.codec.decode(part))]
