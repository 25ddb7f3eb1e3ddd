"""The same matrices stored by other packages, which bring kernels of their own.

    int8:torchao        fp8:torchao          its tensors in plain linear layers
    int8:bitsandbytes   nf4:bitsandbytes     its layers; int8 is LLM.int8(), which keeps outlying columns in 16 bits

LoRAs lie over both. Blocks cannot be streamed with them, for their tensors are not plain: that takes the storage of
`store_linears`, which needs no package.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import nn

from longtake.backbones.placement.storage import Storage, StoredLinear, block_linears, store_linears
from longtake.errors import ModelError

__all__ = ["AnyStorage", "Foreign", "back_end_of", "form_of", "store"]

Foreign = Literal["int8:torchao", "fp8:torchao", "int8:bitsandbytes", "nf4:bitsandbytes"]
AnyStorage = Storage | Foreign
Store = Callable[[Any, nn.Module, Mapping[str, nn.Linear], torch.device, torch.device], None]


def form_of(storage: AnyStorage) -> Storage:
    """The form of ours that takes as much memory.

    >>> form_of("int8:torchao"), form_of("nf4")
    ('int8', 'nf4')
    """
    return cast(Storage, storage.partition(":")[0])


def back_end_of(storage: AnyStorage) -> str:
    """The package that stores so; empty for none. It can be imported.

    Raises:
        ModelError: it cannot.
    """
    package = storage.partition(":")[2]
    try:
        if package:
            importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"{package} cannot be used ({error}): pip install 'longtake[{package}]', or leave the storage to longtake: "
            f"{form_of(storage)}"
        ) from error
    return package


def store(transformer: nn.Module, storage: AnyStorage, home: torch.device, goal: torch.device) -> int:
    """Stores the large matrices of a network, as `store_linears` does or by a package; returns how many.

    Args:
        transformer: with weights.
        storage: the form, and whose.
        home: where the network lies; ours and torchao's forms are computed there.
        goal: where it will compute. bitsandbytes rounds what is settled there from another home on its way.

    Raises:
        ModelError: the package is missing, or the network has been prepared further than it may be.
    """
    if storage not in _STORES:
        return store_linears(transformer, form_of(storage), home)
    package = back_end_of(storage)
    layers = block_linears(transformer)
    if any(isinstance(layer, StoredLinear) for layer in layers.values()):
        raise ModelError(f"the matrices are stored in fewer bits already: {package} takes those that are not")
    _STORES[storage](importlib.import_module(package), transformer, layers, home, goal)
    return len(layers)


def _torchao(config: str) -> Store:
    def store(
        package: Any, transformer: nn.Module, layers: Mapping[str, nn.Linear], home: torch.device, goal: torch.device
    ) -> None:
        quantization = importlib.import_module(f"{package.__name__}.quantization")
        chosen = {id(layer) for layer in layers.values()}
        quantization.quantize_(
            transformer,
            getattr(quantization, config)(),
            filter_fn=lambda module, name: id(module) in chosen,
            device=home,
        )

    return store


def _bitsandbytes(build: Callable[[Any, nn.Linear], nn.Linear]) -> Store:
    def store(
        package: Any, transformer: nn.Module, layers: Mapping[str, nn.Linear], home: torch.device, goal: torch.device
    ) -> None:
        for name, layer in layers.items():
            stored = build(package.nn, layer)
            stored.bias = layer.bias
            parent, _, own = name.rpartition(".")
            # What was rounded elsewhere leaves a part of itself there when it is moved (int8, 0.50).
            setattr(transformer.get_submodule(parent), own, stored.to(goal) if home == goal else stored)

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


_STORES: dict[AnyStorage, Store] = {
    "int8:torchao": _torchao("Int8WeightOnlyConfig"),
    "fp8:torchao": _torchao("Float8WeightOnlyConfig"),
    "int8:bitsandbytes": _bitsandbytes(_int8),
    "nf4:bitsandbytes": _bitsandbytes(_nf4),
}
