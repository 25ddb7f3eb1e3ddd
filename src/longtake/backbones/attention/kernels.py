"""Which kernel computes a network's attention: the best that the device has, or the one that was asked for by name.

A kernel is set on the processors of one network. diffusers' own `set_attention_backend` would also change what every
other network in the process uses.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
    dispatch_attention_fn,
)
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.attention.ours import OURS, registered
from longtake.errors import ModelError

__all__ = ["FASTER", "Kernel", "always_masks", "attend", "best_kernel", "installed_kernels", "use_kernel"]

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
        return registered(kernel) if kernel in OURS else _known(kernel)
    except RuntimeError as reason:
        raise ModelError(f"{kernel} attention is not installed: {reason}") from reason


def _is_installed(kernel: Kernel) -> bool:
    """True if diffusers or, for what it does not know, the list of packages says so; nothing is loaded for it."""
    if kernel in OURS:
        return bool(_version_of(kernel))
    try:
        return bool(_known(kernel))
    except RuntimeError:
        return False


def _known(kernel: Kernel) -> AttentionBackendName:
    """The name that diffusers has for a kernel.

    Raises:
        RuntimeError: it is not installed.
    """
    name = AttentionBackendName(_NAMES[kernel])
    _check_attention_backend_requirements(name)
    return name


def _version_of(package: str) -> str:
    """That of an installed package, empty for none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
