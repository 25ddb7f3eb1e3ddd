"""Doubling an image and then convolving it, as convolutions of the image itself.

After nearest-neighbor doubling the three taps of a kernel meet only two different rows, so they can be added up before:

    rows of the source           i - 1       i       i + 1
    output row 2 i               w0       w1 + w2
    output row 2 i + 1                    w0 + w1     w2

and so for columns, and for images but the first, which is not doubled. Eight kernels of 2 x 2 x 2 take the place of one
of 3 x 3 x 3 on eight times the positions: 8 products for each 27. Replicate padding of the source is replicate padding
of the doubled. In real numbers this is the same; rounded, the weights are sums of up to eight.
"""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoUpsampleCausal3D
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv3d

__all__ = ["upsample_folded"]

PIECE = 1 << 27  # bytes that one convolution makes at most, if it is more than one frame

_DOUBLED = [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]  # phase, tap on the source, tap of the kernel
_SINGLE = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]


@torch.no_grad()
def upsample_folded(layer: HunyuanVideoUpsampleCausal3D, x: Float[Tensor, "b d t h w"]) -> Float[Tensor, "b e T H W"]:
    """What the layer makes of `x`, to round-off: twice as high and wide, and 2 t - 1 images if it doubles time."""
    conv = layer.conv.conv
    doubled = layer.upsample_factor[0] == 2
    assert tuple(layer.upsample_factor[1:]) == (2, 2)
    kernels = _folded(conv.weight, doubled)
    phases, taps = kernels.shape[2], kernels.shape[5]
    bias = conv.bias if conv.bias is None else conv.bias.repeat(phases)
    b, _, t, h, w = x.shape
    layout = (
        torch.channels_last_3d if x.is_contiguous(memory_format=torch.channels_last_3d) else torch.contiguous_format
    )
    padded = _padded(x, taps - 1, layout)
    size = (b, conv.out_channels, phases * t, 2 * h, 2 * w)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
    # An odd image 2 j - 1 comes before the even one 2 j of the same two frames. So there is one before the first, which
    # is dropped in the end.
    split = out.unflatten(4, (w, 2)).unflatten(3, (h, 2)).unflatten(2, (t, phases))
    step = max(1, PIECE // (phases * conv.out_channels * h * w * x.element_size()))
    for start in range(0, t, step):
        stop = min(start + step, t)
        source = padded[:, :, start : stop + taps - 1]
        for row in range(2):
            for column in range(2):
                seen = source[..., row : row + h + 1, column : column + w + 1]
                made = conv3d(seen, kernels[row, column].flatten(0, 1), bias).unflatten(1, (phases, -1))
                split[:, :, start:stop, :, :, row, :, column] = made.permute(0, 2, 3, 1, 4, 5)
    return out[:, :, phases - 1 :]


def _padded(x: Float[Tensor, "b d t h w"], before: int, layout: torch.memory_format) -> Tensor:
    """`x` with its edges repeated: a position on each side, and images before the first. Its layout is kept."""
    b, d, t, h, w = x.shape
    out = torch.empty((b, d, before + t, h + 2, w + 2), dtype=x.dtype, device=x.device, memory_format=layout)
    inner = out[:, :, before:]
    inner[..., 1:-1, 1:-1] = x
    for rim, edge in ((0, 1), (-1, -2)):
        inner[..., rim, 1:-1] = inner[..., edge, 1:-1]
    for rim, edge in ((0, 1), (-1, -2)):  # with the corners
        inner[..., rim] = inner[..., edge]
    out[:, :, :before] = inner[:, :, :1]
    return out


def _folded(weight: Float[Tensor, "e d 3 3 3"], doubled: bool) -> Float[Tensor, "2 2 p e d k 2 2"]:
    """The kernels of each row, column and image that one source position becomes, images in the order of time."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    side = torch.tensor(_DOUBLED, dtype=exact, device=weight.device)
    time = side.flip(0) if doubled else torch.tensor(_SINGLE, dtype=exact, device=weight.device)
    kernels = torch.einsum("rjh,ckw,pit,edthw->rcpedijk", side, side, time, weight.to(exact))
    return kernels.to(weight.dtype)
