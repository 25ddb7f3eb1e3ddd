"""Kernels of attention that diffusers' dispatcher does not know, made known to it under names of ours."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor

from longtake.backbones.attention.tiles import attend_in_tiles
from longtake.errors import ModelError

__all__ = ["OURS", "registered"]

Compute = Callable[[Tensor, Tensor, Tensor, Tensor | None, float | None], Tensor]  # of query, key, value, mask, scale


def _flash_4() -> Compute:
    """FlashAttention 4 as it is installed: diffusers' own row for it fetches it from a hub.

    Raises:
        RuntimeError: it is not, or something that it needs is not.
    """
    try:
        flash = importlib.import_module("flash_attn.cute")
    except ImportError as error:
        raise RuntimeError(f"{error} (pip install 'longtake[flash-attn-4]')") from error
    # Its compiler says so of an argument of its own (4.0.0b36), at length and with each kernel.
    warnings.filterwarnings("ignore", "Argument aux_data ", UserWarning)

    def whole(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        return flash.flash_attn_func(query, key, value, softmax_scale=scale)[0]

    # One operation to a compiler, which cannot look into it.
    schema = "(Tensor query, Tensor key, Tensor value, float? scale) -> Tensor"
    operation = torch.library.custom_op("longtake::flash_attn_4", whole, mutates_args=(), schema=schema)
    operation.register_fake(lambda query, key, value, scale: query.new_empty(query.shape))

    def compute(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
        if mask is not None:
            raise ModelError("flash-attn-4 attention is for tokens that all see each other: cudnn takes masks")
        return operation(query, key, value, scale)

    return compute


OURS: dict[str, Callable[[], Compute]] = {"tiled": lambda: attend_in_tiles, "flash-attn-4": _flash_4}


def registered(kernel: str) -> AttentionBackendName:
    """The name under which diffusers' dispatcher finds one of `OURS`, which is made known to it once.

    The dispatcher's names are an enumeration, which cannot grow: this one is made as its members are, but is not listed
    among them. Nothing that was registered before changes.

    Raises:
        RuntimeError: it is not installed.
    """
    text = f"longtake_{kernel.replace('-', '_')}"
    found = [name for name in _AttentionBackendRegistry._backends if name.value == text]
    if found:
        return found[0]
    compute = OURS[kernel]()

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        if is_causal:
            raise ModelError(f"{kernel} attention has no causal form: give it a mask")
        return compute(query, key, value, attn_mask, scale)

    name = str.__new__(AttentionBackendName, text)
    name._name_, name._value_ = text.upper(), text
    _AttentionBackendRegistry.register(name)(attend)
    return name
