"""Latent frames as tokens, one learned kernel per rate of compression (paper, section 3.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from longtake.errors import ModelError
from longtake.schedule import Kernel

__all__ = ["Patchify", "long_name", "trained_kernels"]


def long_name(kernel: Kernel) -> str:
    """The kernel's name with all three sides, as the weights are called.

    >>> long_name(Kernel(2, 4, 4))
    'k2h4w4'
    """
    return f"k{kernel.t}h{kernel.h}w{kernel.w}"


def trained_kernels(names: Iterable[str]) -> set[Kernel]:
    """The kernels that weights of these names, of a `Patchify`, belong to.

    >>> trained_kernels(["proj.k2h4w4.weight", "proj.k2h4w4.bias"])
    {Kernel(t=2, h=4, w=4)}
    """
    found = [re.fullmatch(r"proj\.k(\d+)h(\d+)w(\d+)\.\w+", name) for name in names]
    return {Kernel(*(int(side) for side in match.groups())) for match in found if match}


def _stretched(base: nn.Conv3d, kernel: Kernel, channels: int) -> nn.Conv3d:
    """A convolution that begins as `base` on the latents average-pooled to `base`'s own patch."""
    sides = (kernel.t, kernel.h, kernel.w)
    for side, patch in zip(sides, base.kernel_size, strict=True):
        if side % patch:
            raise ModelError(
                f"kernel {long_name(kernel)} cannot be made of the model's own patch {base.kernel_size}: "
                "each of its sides has to be a multiple of the patch's"
            )
    weight = base.weight.detach()[:, :channels]
    for dim, (side, patch) in enumerate(zip(sides, base.kernel_size, strict=True), start=2):
        weight = weight.repeat_interleave(side // patch, dim) / (side // patch)
    conv = nn.Conv3d(channels, base.out_channels, sides, stride=sides, bias=base.bias is not None, device="meta")
    conv.weight = nn.Parameter(weight.contiguous().clone())
    if base.bias is not None:
        conv.bias = nn.Parameter(base.bias.detach().clone())
    return conv


class Patchify(nn.Module):
    """History frames to tokens: own weights for each kernel, each begun as the backbone's kernel, stretched.

    Stretching repeats the backbone's kernel over the larger one and divides it by the growth in volume, so a fresh
    `Patchify` equals the backbone's patch embedding of the average-pooled latents. Frames that do not fill a kernel are
    padded by replication, as the released models do it.

    >>> import torch
    >>> patchify = Patchify(nn.Conv3d(16, 64, (1, 2, 2), (1, 2, 2)), [Kernel(1, 2, 2), Kernel(4, 8, 8)])
    >>> patchify(torch.zeros(1, 16, 9, 12, 20), Kernel(4, 8, 8)).shape
    torch.Size([1, 18, 64])
    """

    def __init__(self, base: nn.Conv3d, kernels: Iterable[Kernel], channels: int | None = None) -> None:
        super().__init__()
        self.width = base.out_channels
        channels = channels or base.in_channels
        self.proj = nn.ModuleDict(
            {long_name(k): _stretched(base, k, channels) for k in sorted(set(kernels), key=long_name)}
        )

    @classmethod
    def sharing(cls, convs: Mapping[Kernel, nn.Module]) -> Patchify:
        """Kernels that another module owns, such as a released network's: the same parameters, not copies.

        >>> near, far = nn.Conv3d(16, 64, (1, 2, 2), (1, 2, 2)), nn.Conv3d(16, 64, (4, 8, 8), (4, 8, 8))
        >>> Patchify.sharing({Kernel(1, 2, 2): near, Kernel(4, 8, 8): far}).proj["k4h8w8"] is far
        True
        """
        width = next(next(iter(convs.values())).parameters()).shape[0]
        patchify = cls(nn.Conv3d(1, width, 1, device="meta"), ())  # begins no weights: those are there
        patchify.proj.update({long_name(kernel): conv for kernel, conv in convs.items()})
        return patchify

    def forward(self, frames: Float[Tensor, "b c t h w"], kernel: Kernel) -> Float[Tensor, "b n d"]:
        """The tokens of `frames` seen through `kernel`, in time order, then rows, then columns.

        Raises:
            ModelError: the model has no weights for that kernel.
        """
        name = long_name(kernel)
        if name not in self.proj:
            raise ModelError(f"the model has no history weights for kernel {name}; it has {', '.join(self.proj)}")
        t, h, w = frames.shape[2:]
        missing = (0, -w % kernel.w, 0, -h % kernel.h, 0, -t % kernel.t)
        if any(missing):
            frames = nn.functional.pad(frames, missing, mode="replicate")
        return rearrange(self.proj[name](frames), "b d t h w -> b (t h w) d")
