"""What one file holds: tensors by name, each to be read as it is stored.

ComfyUI and those who write files for it store matrices in float8, plain or with a scale beside them:

    blocks.0.ffn.0.weight          F8_E4M3  [o, i]
    blocks.0.ffn.0.scale_weight    F32      []  or [o] or [o, 1]     also called weight_scale
    blocks.0.ffn.0.scale_input     F32      []                       of activations: not used
    scaled_fp8                     F8_E4M3  [0] or [2]               says only that there are scales

A prefix that says nothing but "the transformer" is taken off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtake.backbones.placement.storage import FP8_ROWS, INT8_ROWS, Matrix
from longtake.backbones.single_file.entries import Entry, TensorFile
from longtake.backbones.single_file.gguf import read_gguf
from longtake.backbones.weights import PICKLES, opened
from longtake.errors import ModelError

__all__ = ["open_tensors"]

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.model.", "transformer.")
_SCALES = ("scale_weight", "weight_scale")
_UNUSED = ("scale_input", "input_scale")
_MARK, _TOLD = "scaled_fp8", "comfy_quant"
_PLAIN = ("F64", "F32", "F16", "BF16")
_EIGHT_BITS = {"F8_E4M3": FP8_ROWS, "F8_E5M2": FP8_ROWS, "I8": INT8_ROWS}
_KNOWN = ("float8", "int8")  # how the formats begin that are read here


def open_tensors(path: Path) -> TensorFile:
    """The tensors of a safetensors or GGUF file; only its header is read.

    Raises:
        ModelError: it is missing, a pickle, cut short, or holds tensors of a type that is not known here.
    """
    if path.suffix in PICKLES:
        raise ModelError(f"{path}: a pickle can run any program and is not loaded; convert it to safetensors")
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    entries = read_gguf(path) if path.suffix == ".gguf" else _read_safetensors(path)
    return TensorFile(path, _without_prefix(entries))


def _without_prefix(entries: dict[str, Entry]) -> dict[str, Entry]:
    for prefix in _PREFIXES:
        if entries and all(name.startswith(prefix) for name in entries):
            return {name.removeprefix(prefix): entry for name, entry in entries.items()}
    return entries


def _read_safetensors(path: Path) -> dict[str, Entry]:
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
        types = {name: each.get_dtype() for name, each in slices.items()}
    entries, used = {}, set()
    for name in shapes:
        stem, _, own = name.rpartition(".")
        if own == _TOLD:
            _check_told(path, name)
        if own in (*_UNUSED, _MARK, _TOLD):
            used.add(name)
        if own != "weight":
            continue
        scales = [f"{stem}.{scale}" for scale in _SCALES if f"{stem}.{scale}" in shapes]
        if scales:
            used |= {name, *scales}
            entries[name] = _scaled(path, name, scales[0], shapes, types[name])
    for name, shape in shapes.items():
        if name not in used:
            entries[name] = _unscaled(path, name, shape, types[name])
    return {name: entries[name] for name in shapes if name in entries}


def _unscaled(path: Path, name: str, shape: tuple[int, ...], told: str) -> Entry:
    if told in _PLAIN:
        return Entry(shape, False, partial(_tensor, path, name))
    if not told.startswith("F8_") or told not in _EIGHT_BITS:
        raise ModelError(
            f"{path}: {name} is stored as {told}, which is not read here: take a file in bf16, fp8 or GGUF"
        )
    if len(shape) != 2:
        return Entry(shape, False, lambda: _tensor(path, name).float())
    return Entry(shape, True, lambda: _matrix(path, name, told, torch.ones(shape[0])))


def _scaled(path: Path, name: str, scale: str, shapes: Mapping[str, tuple[int, ...]], told: str) -> Entry:
    rows, sizes = shapes[name][0], shapes[scale]
    count = 1
    for size in sizes:
        count *= size
    if count not in (1, rows) or told not in (*_EIGHT_BITS, *_PLAIN):
        raise ModelError(
            f"{path}: {name} is stored as {told} with {count} scales, which is not read here: "
            "one a matrix or one a row would do"
        )
    if told in _PLAIN or len(shapes[name]) != 2:
        return Entry(shapes[name], False, lambda: _tensor(path, name).float() * _row(path, scale, rows, shapes[name]))
    return Entry(shapes[name], True, lambda: _matrix(path, name, told, _tensor(path, scale).float().flatten()))


def _row(path: Path, scale: str, rows: int, shape: tuple[int, ...]) -> Tensor:
    return _tensor(path, scale).float().flatten().expand(rows).view(rows, *[1] * (len(shape) - 1))


def _matrix(path: Path, name: str, told: str, scale: Tensor) -> Matrix:
    weight = _tensor(path, name)
    return Matrix(_EIGHT_BITS[told], len(weight), weight.shape[1], weight, scale.expand(len(weight)).contiguous())


def _tensor(path: Path, name: str) -> Tensor:
    with opened(path) as file:
        return file.get_tensor(name)


def _check_told(path: Path, name: str) -> None:
    """A newer file says of each layer how it is stored: JSON, in a tensor of bytes."""
    try:
        told: Any = json.loads(bytes(_tensor(path, name).tolist()))["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: {name} does not say how its layer is stored ({error})") from error
    if not str(told).startswith(_KNOWN):
        raise ModelError(f"{path}: {name} says {told}, which is not read here: take a file in bf16, fp8 or GGUF")
