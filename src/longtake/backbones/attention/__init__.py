"""Attention: by which kernel a network computes it, and kernels that PyTorch and diffusers lack.

kernels    the best for a device, or the one that is asked for by name, for one network
tiles      attention in bounded memory, for devices without a fused kernel
ours       what is added to diffusers' dispatcher: tiles, FlashAttention 4
"""

from longtake.backbones.attention.kernels import (
    FASTER,
    Kernel,
    always_masks,
    attend,
    best_kernel,
    installed_kernels,
    use_kernel,
)
from longtake.backbones.attention.tiles import attend_in_tiles

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
