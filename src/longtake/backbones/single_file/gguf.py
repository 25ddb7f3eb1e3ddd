"""Tensors in a GGUF file, read with the package `gguf` and unpacked with diffusers' functions.

Blocks of a row's weights share a scale or two; which ones, and in how many bits, is the type of the tensor. Rows can be
taken apart, so that matrices that are one in the file and several here stay packed.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtake.backbones.placement.storage import Form, Matrix, StoredLinear, multiply_full
from longtake.backbones.single_file.entries import Entry
from longtake.errors import ModelError

__all__ = ["read_gguf"]

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_gguf(path: Path) -> dict[str, Entry]:
    """The tensors of a GGUF file; only its header is read.

    Raises:
        ModelError: the package is missing, the file is cut short or no GGUF file, or a type is not known here.
    """
    gguf = _package(path)
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is cut short or is not a GGUF file ({error}); fetch it again") from error
    return {tensor.name: _entry(path, reader, tensor) for tensor in reader.tensors}


def _package(path: Path) -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError:
        raise ModelError(
            f"{path}: GGUF files are read with the package gguf, which is not installed: pip install 'longtake[gguf]'"
        ) from None


def _entry(path: Path, reader: Any, tensor: Any) -> Entry:
    shape = tuple(int(size) for size in reversed(tensor.shape))
    told = reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")  # where a matrix's rows did not fit the blocks
    whole = shape if told is None else tuple(int(told.parts[index][0]) for index in told.data)
    kind = tensor.tensor_type
    if math.prod(whole) != math.prod(shape):
        raise ModelError(f"{path}: {tensor.name} has {shape}, but is said to be {whole}; fetch it again")
    if kind.name in _PLAIN:
        return Entry(whole, False, lambda: _plain(tensor, _PLAIN[kind.name]).view(whole))
    if kind not in _unpackers():
        raise ModelError(
            f"{path}: {tensor.name} is stored as {kind.name}, which is not read here; "
            f"there are {', '.join(each.name for each in _unpackers())}"
        )
    if len(shape) != 2 or whole != shape:
        return Entry(whole, False, lambda: _unpacked(_bytes(tensor), kind).view(whole))
    return Entry(whole, True, lambda: Matrix(_form(kind), *shape, _bytes(tensor)))


def _unpackers() -> dict[Any, Callable[..., Tensor]]:
    return importlib.import_module("diffusers.quantizers.gguf.utils").dequantize_functions


def _bytes(tensor: Any) -> Tensor:
    return torch.from_numpy(tensor.data.copy())  # the file is open for reading only


def _plain(tensor: Any, dtype: torch.dtype) -> Tensor:
    values = _bytes(tensor)
    return values.view(dtype) if values.dtype == torch.uint8 else values


@functools.cache
def _form(kind: Any) -> Form:
    """One for each type, so that layers of the same type compile to the same code."""

    def unpack(layer: StoredLinear, dtype: torch.dtype) -> Tensor:
        return _unpacked(layer.weight, kind).view(layer.out_features, layer.in_features).to(dtype)

    return Form(f"gguf {kind.name}", unpack, multiply_full)


def _unpacked(packed: Tensor, kind: Any) -> Tensor:
    """The numbers of a tensor in float32, one row a block."""
    block_size, type_size = importlib.import_module("gguf").GGML_QUANT_SIZES[kind]
    blocks = packed.reshape(-1, type_size)
    return _unpackers()[kind](blocks, block_size, type_size, torch.float32)
