"""What every benchmark of a model on clips asks for and says: the model, the device, where numbers go."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from longtake.backbones import Backbone, load_backbone

__all__ = ["arguments", "device_name", "open_model"]


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
