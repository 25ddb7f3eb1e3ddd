"""The decoder's layers, a few images at a time: the same function with two fifths of the memory.

A tile of five frames is 17 images, and at 640 x 608 with 256 channels these take 3.4 GB in half precision. diffusers
makes that five times over: the input, normed, through SiLU, padded, convolved. But a causal convolution of kernel 3
needs two images before its own and nothing else. So here a window slides over time, and only what goes in and what
comes out is there as a whole; of all tensors at most 5.9 GiB live at once instead of 14.3, without the weights and what
convolutions need for themselves.

    x          . . . . . . . . . . . . . . . . .
                       | norm, SiLU               straight into the inner part of the window, padded in place
    window           2 n                          the two images before, and the next n
                       | convolution
    out        . . . . . . .

The norms' statistics are of the whole tile, as they must be, and are taken first. Two more reasons why this is fast on
a GPU: sums over each channel use all of it, where the kernel for group norms of one video has one block of threads for
each of 32 groups; and everything stays in the memory format of the weights, channels last or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    HunyuanVideoCausalConv3d,
    HunyuanVideoDecoder3D,
    HunyuanVideoResnetBlockCausal3D,
    HunyuanVideoUpsampleCausal3D,
)
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import batch_norm

__all__ = ["Upsample", "decode_in_pieces", "upsample_in_pieces"]

PIECE = 1 << 28  # bytes that the images of a window take at most, if it is more than one

Upsample = Callable[[HunyuanVideoUpsampleCausal3D, Tensor], Tensor]

_NAME = "longtake"
_Write = Callable[[int, int, Tensor], None]  # puts what a convolution reads of images `start` to `stop` into a tensor


class _DecoderHook(ModelHook):
    """The decoder's own order of layers."""

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        self.upsample = upsample

    def new_forward(self, module: HunyuanVideoDecoder3D, hidden_states: Tensor) -> Tensor:
        return torch.cat([_decode(module, one, self.upsample) for one in hidden_states.split(1)])


def decode_in_pieces(decoder: HunyuanVideoDecoder3D, upsample: Upsample) -> None:
    """Makes this decoder pass time in pieces, and be enlarged by `upsample`. For inference: it has no gradients."""
    HookRegistry.check_if_exists_or_initialize(decoder).register_hook(_DecoderHook(upsample), _NAME)


@torch.no_grad()
def _decode(
    decoder: HunyuanVideoDecoder3D, z: Float[Tensor, "1 c t h w"], upsample: Upsample
) -> Float[Tensor, "1 3 T H W"]:
    x = decoder.get_submodule("mid_block")(decoder.conv_in(z))
    for block in decoder.up_blocks:
        for resnet in block.get_submodule("resnets").children():
            assert isinstance(resnet, HunyuanVideoResnetBlockCausal3D)
            x = _resnet(resnet, x)
        for layer in block.get_submodule("upsamplers").children() if block.upsamplers else ():
            assert isinstance(layer, HunyuanVideoUpsampleCausal3D)
            x = upsample(layer, x)
    return _normed_convolution(decoder.conv_norm_out, decoder.conv_out, x)


def _resnet(block: HunyuanVideoResnetBlockCausal3D, x: Float[Tensor, "1 d t h w"]) -> Float[Tensor, "1 e t h w"]:
    """`x` through norm, SiLU and convolution twice, added to `x`."""
    inner = _normed_convolution(block.norm1, block.conv1, x)
    for images, piece in _pieces(block.conv2, inner.shape, _activation(block.norm2, inner)):
        residual = x[:, :, images]
        if block.conv_shortcut is not None:
            residual = block.conv_shortcut(residual)
        torch.add(piece, residual, out=inner[:, :, images])  # in its place: the window has what is still needed of it
    return inner


def _normed_convolution(
    norm: nn.GroupNorm, conv: HunyuanVideoCausalConv3d, x: Float[Tensor, "1 d t h w"]
) -> Float[Tensor, "1 e t h w"]:
    return _whole(conv, x.shape, _activation(norm, x))


def upsample_in_pieces(
    layer: HunyuanVideoUpsampleCausal3D, x: Float[Tensor, "1 d t h w"]
) -> Float[Tensor, "1 e T H W"]:
    """Twice as high and wide, and where it says so each image twice but the first; then a convolution."""
    b, d, t, h, w = x.shape
    doubled = layer.upsample_factor[0] == 2
    assert tuple(layer.upsample_factor[1:]) == (2, 2)

    def write(start: int, stop: int, inner: Tensor) -> None:
        images = torch.arange(start, stop, device=x.device)
        source = x.index_select(2, (images + 1) // 2 if doubled else images)
        inner.unflatten(4, (w, 2)).unflatten(3, (h, 2)).copy_(source[:, :, :, :, None, :, None])

    return _whole(layer.conv, torch.Size((b, d, 2 * t - 1 if doubled else t, 2 * h, 2 * w)), write)


def _activation(norm: nn.GroupNorm, x: Float[Tensor, "1 d t h w"]) -> _Write:
    """What comes after this group norm and SiLU, for some images of `x`; the statistics are those of all."""
    exact = torch.promote_types(x.dtype, torch.float32)
    count, groups = x[0, 0].numel(), norm.num_groups
    mean = torch.sum(x, dim=(0, 2, 3, 4), dtype=exact).double() / count
    square = torch.linalg.vector_norm(x, dim=(0, 2, 3, 4), dtype=exact).double().square() / count
    mean, square = (value.unflatten(0, (groups, -1)).mean(1, keepdim=True) for value in (mean, square))
    variance = (square - mean.square()).clamp(min=0.0)
    size = norm.num_channels // groups
    mean, variance = (value.expand(-1, size).flatten().to(exact) for value in (mean, variance))
    weight, bias = norm.weight.to(exact), norm.bias.to(exact)

    def write(start: int, stop: int, inner: Tensor) -> None:
        normed = batch_norm(x[:, :, start:stop], mean, variance, weight, bias, eps=norm.eps)
        torch.ops.aten.silu.out(normed, out=inner)

    return write


def _whole(conv: HunyuanVideoCausalConv3d, shape: torch.Size, write: _Write) -> Float[Tensor, "1 e t h w"]:
    """All images that a convolution makes of what `write` gives, of this shape."""
    weight = conv.conv.weight
    size = (1, conv.conv.out_channels, *shape[2:])
    out = torch.empty(size, dtype=weight.dtype, device=weight.device, memory_format=_layout(weight))
    for images, piece in _pieces(conv, shape, write):
        out[:, :, images] = piece
    return out


def _pieces(conv: HunyuanVideoCausalConv3d, shape: torch.Size, write: _Write) -> Iterator[tuple[slice, Tensor]]:
    """The images that a causal convolution makes of what `write` gives, some after others."""
    weight = conv.conv.weight
    assert weight.shape[2:] == (3, 3, 3)
    assert conv.pad_mode == "replicate"
    _, channels, images, height, width = shape
    step = min(images, max(1, PIECE // (channels * height * width * weight.element_size())))
    size = (1, channels, 2 + step, height + 2, width + 2)
    window = torch.empty(size, dtype=weight.dtype, device=weight.device, memory_format=_layout(weight))
    for start in range(0, images, step):
        count = min(step, images - start)
        if start:
            window[:, :, :2] = window[:, :, -2:].clone()
        fresh = window[:, :, 2 : 2 + count]
        write(start, start + count, fresh[..., 1:-1, 1:-1])
        for rim, edge in ((0, 1), (-1, -2)):
            fresh[..., rim, 1:-1] = fresh[..., edge, 1:-1]
        for rim, edge in ((0, 1), (-1, -2)):  # with the corners
            fresh[..., rim] = fresh[..., edge]
        if not start:
            window[:, :, :2] = fresh[:, :, :1]
        yield slice(start, start + count), conv.conv(window[:, :, : 2 + count])


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format
