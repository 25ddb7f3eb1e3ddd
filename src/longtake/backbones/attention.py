"""Which kernel computes a network's attention: the best that the device has, or the one that was asked for by name.

A device without a fused kernel for a type (bf16 before Ampere, for one) falls back to PyTorch's plain formula, whose
score matrix has heads x tokens x tokens numbers: 30 GiB for one section of the 13 B model, whatever the card. `tiled`
is for these. Each row of the scores is a softmax of its own, so that a few rows of one head at a time give the same
result in bounded memory.

A kernel is set on the processors of one network. diffusers' own `set_attention_backend` would also change what every
other network in the process uses.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _check_attention_backend_requirements,
    dispatch_attention_fn,
)
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from longtake.errors import ModelError

__all__ = [
    "FASTER",
    "Kernel",
    "always_masks",
    "attend",
    "attend_in_tiles",
    "best_kernel",
    "installed_kernels",
    "use_kernel",
]

Kernel = Literal[
    "native", "cudnn", "flash", "efficient", "math", "tiled", "sage", "flash-attn", "flash-attn-4", "xformers"
]
FASTER: Kernel = "flash-attn-4"  # than what PyTorch has for Hopper; a package of this name

_NAMES: dict[str, str] = {
    "native": "native",  # PyTorch decides at each call
    "cudnn": "_native_cudnn",
    "flash": "_native_flash",
    "efficient": "_native_efficient",
    "math": "_native_math",  # builds the score matrix
    "sage": "sage",  # 8-bit: changes the result
    "flash-attn": "flash",
    "xformers": "xformers",
}
_ADDED: tuple[Kernel, ...] = ("sage", "flash-attn", "flash-attn-4", "xformers")  # packages of their own
_MASKLESS = {"flash", "sage", "flash-attn", "flash-attn-4"}
_HALF = (torch.bfloat16, torch.float16)

# Alive at once in the plain formula, all of them float32: scores, what a mask makes of them, their softmax.
_SCORES_ALIVE, _SCORE_BYTES = 3, 4
TILE_BYTES = 256 * 2**20  # under what a block of the 13 B model has alive anyway


def attend_in_tiles(
    query: Float[Tensor, "b n a e"],
    key: Float[Tensor, "b m a e"],
    value: Float[Tensor, "b m a e"],
    mask: Tensor | None = None,
    scale: float | None = None,
    limit: int = TILE_BYTES,
) -> Float[Tensor, "b n a e"]:
    """Attention, some queries of one head at a time, so that its scores take no more than `limit` bytes.

    Args:
        query: of the tokens that look.
        key: of the tokens that are looked at.
        value: the same tokens'.
        mask: broadcastable to "b a n m"; True where a query sees a key, or a number added to its score. "b m" is read
            as what all queries of a sample see, as diffusers does.
        scale: of the scores, one over the root of the head size if not given.
        limit: bytes; one query at least is computed at a time.
    """
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, None]
    b, n, heads, _ = query.shape
    rows = max(1, limit // (b * key.shape[1] * _SCORES_ALIVE * _SCORE_BYTES))
    out = torch.empty_like(query)
    for head in range(heads):
        k, v = key[:, :, head], value[:, :, head]
        for start in range(0, n, rows):
            tile = slice(start, start + rows)
            seen = None if mask is None else _part(_part(mask, 1, slice(head, head + 1)), 2, tile)
            # "b 1 n e": plain SDPA, so that a device's fused kernel is used where there is one after all.
            out[:, tile, head] = functional.scaled_dot_product_attention(
                query[:, None, tile, head], k[:, None], v[:, None], attn_mask=seen, scale=scale
            )[:, 0]
    return out


def attend(
    kernel: Kernel, query: Float[Tensor, "b n a e"], key: Float[Tensor, "b m a e"], value: Float[Tensor, "b m a e"]
) -> Float[Tensor, "b n a e"]:
    """Attention without a mask by the kernel of that name.

    Raises:
        ModelError: it is not installed.
    """
    return dispatch_attention_fn(query, key, value, backend=_found(kernel))


def best_kernel(device: torch.device, dtype: torch.dtype, head_size: int, masked: bool = False) -> Kernel:
    """The lossless kernel that serves such attention best: one that builds no score matrix, always.

    On Hopper, at 19,470 tokens of 24 x 128, FlashAttention 4 does 701 TFLOP/s, cuDNN 536 and FlashAttention 2 350
    (`benchmarks/attention.py`, H200). It is compiled when it is first called: five seconds, which large models repay.
    """
    if device.type == "cpu":
        return "native"  # fused for every type
    if device.type != "cuda":
        return "tiled"
    asked = _asked(device, dtype, head_size, masked)
    major, _ = torch.cuda.get_device_capability(device)
    if major == 9 and not masked and dtype in _HALF and head_size == 128 and _version_of(FASTER):
        return FASTER
    if major >= 9 and torch.backends.cuda.can_use_cudnn_attention(asked):
        return "cudnn"
    if torch.backends.cuda.can_use_flash_attention(asked):
        return "flash"
    if torch.backends.cuda.can_use_efficient_attention(asked):
        return "efficient"
    return "tiled"


def installed_kernels(device: torch.device, dtype: torch.dtype, head_size: int) -> tuple[Kernel, ...]:
    """The kernels by which this device computes such attention here, packages that are installed among them.

    >>> installed_kernels(torch.device("cpu"), torch.float32, 64)
    ('native', 'math', 'tiled')
    """
    if device.type != "cuda":
        return ("native", "math", "tiled")
    asked = _asked(device, dtype, head_size, masked=False)
    fused: dict[Kernel, bool] = {
        "cudnn": torch.backends.cuda.can_use_cudnn_attention(asked),
        "flash": torch.backends.cuda.can_use_flash_attention(asked),
        "efficient": torch.backends.cuda.can_use_efficient_attention(asked),
    }
    own: list[Kernel] = [kernel for kernel, usable in fused.items() if usable]
    added: list[Kernel] = [kernel for kernel in _ADDED if _is_installed(kernel)]
    return ("native", *own, "math", "tiled", *added)


def use_kernel(transformer: nn.Module, kernel: Kernel) -> None:
    """Lets every attention of this network that diffusers dispatches be computed by that kernel.

    The small attention of HunyuanVideo's text refiner is not among them.

    Raises:
        ModelError: the kernel is not installed, or knows no masks while the network always has one.
    """
    if kernel in _MASKLESS and always_masks(transformer):
        raise ModelError(f"{type(transformer).__name__} always masks, which {kernel} cannot: cudnn or efficient can")
    name = _found(kernel)
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and hasattr(processor, "_attention_backend"):
            processor._attention_backend = name


def always_masks(transformer: nn.Module) -> bool:
    """True of a network that makes a mask of every text, for a lone one too."""
    return isinstance(transformer, HunyuanVideoTransformer3DModel)


def _asked(device: torch.device, dtype: torch.dtype, head_size: int, masked: bool) -> torch.backends.cuda.SDPAParams:
    """Attention of one head over 128 tokens, as PyTorch's own kernels are asked whether they could."""
    query = torch.empty((1, 1, 128, head_size), device=device, dtype=dtype)
    mask = torch.ones((1, 1, 1, 128), device=device, dtype=torch.bool) if masked else None
    return torch.backends.cuda.SDPAParams(query, query, query, mask, 0.0, False, False)


def _found(kernel: Kernel) -> AttentionBackendName:
    """The name under which diffusers' dispatcher finds a kernel.

    Raises:
        ModelError: it is not installed, or cannot be loaded.
    """
    try:
        if kernel in _OURS:
            return _OURS[kernel]()
        name = AttentionBackendName(_NAMES[kernel])
        _check_attention_backend_requirements(name)
    except RuntimeError as reason:
        raise ModelError(f"{kernel} attention is not installed: {reason}") from reason
    return name


def _is_installed(kernel: Kernel) -> bool:
    """True if diffusers or, for what it does not know, the list of packages says so; nothing is loaded for it."""
    if kernel in _OURS:
        return bool(_version_of(kernel))
    try:
        _check_attention_backend_requirements(AttentionBackendName(_NAMES[kernel]))
    except RuntimeError:
        return False
    return True


def _version_of(package: str) -> str:
    """That of an installed package, empty for none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _part(mask: Tensor, dim: int, part: slice) -> Tensor:
    """A part along one dimension of a mask, all of it where it is the same for all."""
    return mask if mask.shape[dim] == 1 else mask[(slice(None),) * dim + (part,)]


def _tiled() -> AttentionBackendName:
    """`attend_in_tiles` under a name of diffusers' dispatcher."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        if is_causal:
            raise ModelError("tiled attention has no causal form: give it a mask")
        return attend_in_tiles(query, key, value, attn_mask, scale)

    return _registered("tiled", lambda: attend)


def _flash_4() -> AttentionBackendName:
    """FlashAttention 4 under a name of diffusers' dispatcher, which fetches it from a hub otherwise.

    Raises:
        RuntimeError: it is not installed, or something that it needs is not.
    """

    def build() -> Callable[..., Tensor]:
        try:
            flash = importlib.import_module("flash_attn.cute")
        except ImportError as error:
            raise RuntimeError(f"{error} (pip install 'longtake[flash-attn-4]')") from error
        # Its compiler says so of an argument of its own (4.0.0b36), at length and with each kernel.
        warnings.filterwarnings("ignore", "Argument aux_data ", UserWarning)

        def compute(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
            return flash.flash_attn_func(query, key, value, softmax_scale=scale)[0]

        # One operation to a compiler, which cannot look into it.
        schema = "(Tensor query, Tensor key, Tensor value, float? scale) -> Tensor"
        operation = torch.library.custom_op("longtake::flash_attn_4", compute, mutates_args=(), schema=schema)
        operation.register_fake(lambda query, key, value, scale: query.new_empty(query.shape))

        def attend(
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attn_mask: Tensor | None = None,
            is_causal: bool = False,
            scale: float | None = None,
        ) -> Tensor:
            if is_causal or attn_mask is not None:
                raise ModelError("flash-attn-4 attention is for tokens that all see each other: cudnn takes masks")
            return operation(query, key, value, scale)

        return attend

    return _registered("flash_attn_4", build)


_OURS: dict[Kernel, Callable[[], AttentionBackendName]] = {"tiled": _tiled, "flash-attn-4": _flash_4}


def _registered(kernel: str, build: Callable[[], Callable[..., Tensor]]) -> AttentionBackendName:
    """The name of a kernel that was made known to diffusers' dispatcher; `build` makes it, once.

    The dispatcher's names are an enumeration, which cannot grow: this one is made as its members are, but is not listed
    among them. Nothing that was registered before changes.
    """
    text = f"longtake_{kernel}"
    found = [name for name in _AttentionBackendRegistry._backends if name.value == text]
    if found:
        return found[0]
    attend = build()
    name = str.__new__(AttentionBackendName, text)
    name._name_, name._value_ = text.upper(), text
    _AttentionBackendRegistry.register(name)(attend)
    return name
