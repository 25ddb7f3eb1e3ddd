"""Weights on disk: safetensors only, checked against the config before anything is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from longtake.errors import ModelError

__all__ = [
    "HISTORY",
    "PICKLES",
    "check_fit",
    "digest_of",
    "opened",
    "outline_tensors",
    "read_json",
    "read_note",
    "read_shapes",
    "read_tensors",
    "weight_files",
]

HISTORY = "history_patch_embed."  # where the transformer's file keeps the weights of `Patchify`
PICKLES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")


def digest_of(network: nn.Module) -> str:
    """Sixteen hexadecimal digits of a network's weights."""
    digest = sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


def weight_files(folder: Path, stem: str) -> tuple[Path, ...]:
    """The safetensors files of a network: one, or the shards that its index names.

    Raises:
        ModelError: there are none, a shard is missing, or only pickles are offered.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent or not names:
            what = ", ".join(absent) if absent else "every shard"
            raise ModelError(f"{folder}: {what} missing of the {len(names)} files that {index.name} names")
        return tuple(folder / name for name in names)
    single = folder / f"{stem}.safetensors"
    if single.is_file():
        return (single,)
    pickles = sorted(path.name for suffix in PICKLES for path in folder.glob(f"*{suffix}"))
    if pickles:
        raise ModelError(
            f"{folder} offers its weights as {pickles[0]}: a pickle can run any program and is not loaded; "
            f"convert it to {single.name}"
        )
    raise ModelError(f"{single} is missing")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open inside.

    Raises:
        ModelError: it is cut short, or is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is cut short or is not a safetensors file ({error}); fetch it again") from error


def read_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, from the files' headers alone."""
    shapes = {}
    for path in files:
        with opened(path) as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def outline_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file on the meta device, from its header; those that are one number are read."""
    with opened(path) as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        return {
            name: torch.empty(shape, device="meta") if math.prod(shape) != 1 else file.get_tensor(name)
            for name, shape in shapes.items()
        }


def read_note(path: Path) -> dict[str, str]:
    """What the header of a file says beside its tensors."""
    with opened(path) as file:
        return file.metadata() or {}


def read_tensors(files: Sequence[Path], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    tensors = {}
    for path in files:
        with opened(path) as file:
            tensors |= {n.removeprefix(prefix): file.get_tensor(n) for n in file.keys() if n.startswith(prefix)}  # noqa: SIM118
    return tensors


def _some(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more" if others else first


def check_fit(part: Path, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, torch.Size]) -> None:
    """Checks that a file holds just the tensors that the config asks for, in their shapes.

    Raises:
        ModelError: it does not; the message names the tensor and both shapes.
    """
    wrong = [name for name, shape in wanted.items() if name in found and found[name] != tuple(shape)]
    if wrong:
        name = wrong[0]
        others = f" ({len(wrong) - 1} more differ)" if len(wrong) > 1 else ""
        asked = tuple(wanted[name])
        raise ModelError(
            f"{part}: tensor {name} is {found[name]} in the file, but config.json asks for {asked}{others}"
        )
    absent = [name for name in wanted if name not in found]
    if absent:
        raise ModelError(f"{part}: the weights lack {_some(absent)}, which config.json asks for")
    foreign = [name for name in found if name not in wanted]
    if foreign:
        raise ModelError(f"{part}: the weights hold {_some(foreign)}, for which config.json has no place")
