"""The same matrices stored by other packages, which bring kernels of their own.

    torchao        int8, fp8     its tensors in plain linear layers
    bitsandbytes   int8, nf4     its layers; int8 is LLM.int8(), which keeps outlying columns in 16 bits

LoRAs lie over both. Blocks cannot be streamed with them, for their tensors are not plain: that takes the storage of
`store_linears`, which needs no package.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from longtake.backbones.placement.storage import Storage, StoredLinear, block_linears
from longtake.errors import ModelError

__all__ = ["BackEnd", "store_linears_with"]

BackEnd = Literal["torchao", "bitsandbytes"]
Store = Callable[[Any, nn.Module, Mapping[str, nn.Linear], torch.device], None]


def store_linears_with(back_end: BackEnd, transformer: nn.Module, storage: Storage, device: torch.device) -> int:
    """Lets a package store the large matrices of a network; returns how many. They are on the device then.

    To be called where `store_linears` would be.

    Raises:
        ModelError: the package is missing or cannot store so, or the network has been prepared further than it may be.
    """
    store = _STORES.get((back_end, storage))
    if store is None:
        known = ", ".join(kind for name, kind in _STORES if name == back_end)
        raise ModelError(f"{back_end} does not store matrices in {storage!r}; it has {known}")
    layers = block_linears(transformer)
    if any(isinstance(layer, StoredLinear) for layer in layers.values()):
        raise ModelError(f"the matrices are stored in fewer bits already: {back_end} takes those that are not")
    try:
        package = importlib.import_module(back_end)
    except ImportError as error:
        raise ModelError(
            f"{back_end} cannot be used ({error}): pip install longtake[{back_end}], or leave the storage to longtake"
        ) from error
    store(package, transformer, layers, device)
    return len(layers)


def _torchao(config: str) -> Store:
    def store(package: Any, transformer: nn.Module, layers: Mapping[str, nn.Linear], device: torch.device) -> None:
        quantization = importlib.import_module(f"{package.__name__}.quantization")
        chosen = {id(layer) for layer in layers.values()}
        quantization.quantize_(
            transformer,
            getattr(quantization, config)(),
            filter_fn=lambda module, name: id(module) in chosen,
            device=device,
        )

    return store


def _bitsandbytes(build: Callable[[Any, nn.Linear], nn.Linear]) -> Store:
    def store(package: Any, transformer: nn.Module, layers: Mapping[str, nn.Linear], device: torch.device) -> None:
        for name, layer in layers.items():
            stored = build(package.nn, layer)
            stored.bias = layer.bias
            parent, _, own = name.rpartition(".")
            setattr(transformer.get_submodule(parent), own, stored.to(device))  # it is rounded on its way

    return store


def _nf4(package: Any, layer: nn.Linear) -> nn.Linear:
    sizes = layer.in_features, layer.out_features
    stored = package.Linear4bit(*sizes, bias=False, quant_type="nf4", compute_dtype=layer.weight.dtype, device="meta")
    stored.weight = package.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    return stored


def _int8(package: Any, layer: nn.Linear) -> nn.Linear:
    sizes = layer.in_features, layer.out_features
    stored = package.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False, device="meta")
    stored.weight = package.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    return stored


_STORES: dict[tuple[str, str], Store] = {
    ("torchao", "int8"): _torchao("Int8WeightOnlyConfig"),
    ("torchao", "fp8"): _torchao("Float8WeightOnlyConfig"),
    ("bitsandbytes", "int8"): _bitsandbytes(_int8),
    ("bitsandbytes", "nf4"): _bitsandbytes(_nf4),
}
