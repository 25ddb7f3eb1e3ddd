"""The decoder's layers, a band of rows at a time: the same function with two fifths of the memory.

A tile of five frames is 17 images, and at 640 x 608 with 256 channels these take 3.4 GB in half precision. diffusers
makes that five times over: the input, normed, through SiLU, padded, convolved. But a convolution of kernel 3 needs one
row above and one below its own and nothing else. So here a window slides down over the rows of all images, and only
what goes in and what comes out is there as a whole; of all tensors at most 5.5 GiB live at once instead of 14.3,
without the weights and what convolutions need for themselves.

    x          rows . . . . . . . . . . .
                        | norm, SiLU               straight into the inner part of the window, padded in place
    window         1 +  n + 1                      a row above, the next n, a row below; two images before the first
                        | convolution
    out        rows . . . . . . .

The norms' statistics are of the whole tile, as they must be, and are taken first. Everything stays in the memory format
of the weights; with the channels last, a GPU passes over each tensor once for the statistics, once for norm and SiLU,
once for bias and residual (`fused.py`).
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
from torch.nn.functional import conv3d

from longtake.backbones.fused import add_bias, channel_moments, fits_kernels, scaled_silu

__all__ = ["Upsample", "decode_in_pieces", "upsample_in_pieces"]

PIECE = 1 << 27  # bytes that the rows of a window take at most, if it is more than one

Upsample = Callable[[HunyuanVideoUpsampleCausal3D, Tensor], Tensor]

_NAME = "longtake"
_Write = Callable[[int, int, Tensor], None]  # puts what a convolution reads of rows `start` to `stop` into a tensor


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
    for rows, window in _windows(block.conv2, inner.shape, _activation(block.norm2, inner)):
        residual = x[:, :, :, rows]
        if block.conv_shortcut is not None:
            residual = block.conv_shortcut(residual)
        _convolve(block.conv2, window, residual, inner[:, :, :, rows])  # in its place: the window has what is needed
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
    images = torch.arange(2 * t - 1 if doubled else t, device=x.device)

    def write(start: int, stop: int, inner: Tensor) -> None:
        rows = torch.arange(start, stop, device=x.device) // 2
        source = x[:, :, :, start // 2 : (stop + 1) // 2].index_select(2, (images + 1) // 2 if doubled else images)
        inner.unflatten(4, (w, 2)).copy_(source.index_select(3, rows - start // 2)[..., None])

    return _whole(layer.conv, torch.Size((b, d, len(images), 2 * h, 2 * w)), write)


def _activation(norm: nn.GroupNorm, x: Float[Tensor, "1 d t h w"]) -> _Write:
    """What comes after this group norm and SiLU, for some rows of `x`; the statistics are those of all."""
    exact = torch.promote_types(x.dtype, torch.float32)
    groups = norm.num_groups
    mean, square = (value.unflatten(0, (groups, -1)).mean(1, keepdim=True) for value in channel_moments(x))
    variance = (square - mean.square()).clamp(min=0.0)
    scale = norm.weight.double().unflatten(0, (groups, -1)) * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.double().unflatten(0, (groups, -1)) - mean * scale
    scale, shift = (value.flatten().to(exact) for value in (scale, shift))

    def write(start: int, stop: int, inner: Tensor) -> None:
        scaled_silu(x[:, :, :, start:stop], scale, shift, out=inner)

    return write


def _whole(conv: HunyuanVideoCausalConv3d, shape: torch.Size, write: _Write) -> Float[Tensor, "1 e t h w"]:
    """All images that a convolution makes of what `write` gives, of this shape."""
    weight = conv.conv.weight
    size = (1, conv.conv.out_channels, *shape[2:])
    out = torch.empty(size, dtype=weight.dtype, device=weight.device, memory_format=_layout(weight))
    for rows, window in _windows(conv, shape, write):
        _convolve(conv, window, None, out[:, :, :, rows])
    return out


def _convolve(conv: HunyuanVideoCausalConv3d, window: Tensor, residual: Tensor | None, out: Tensor) -> None:
    """The convolution of a window, and what is added to it, into some rows."""
    inner, bias = conv.conv, conv.conv.bias
    if bias is not None and fits_kernels(window):
        add_bias(conv3d(window, inner.weight), bias, residual, out)
    elif residual is None:
        out.copy_(inner(window))
    else:
        torch.add(inner(window), residual, out=out)


def _windows(conv: HunyuanVideoCausalConv3d, shape: torch.Size, write: _Write) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and what a causal convolution reads for them, padded, one band below the other.

    The rows of a window may be overwritten where `write` finds them: the last one is kept for the next window.
    """
    weight = conv.conv.weight
    assert weight.shape[2:] == (3, 3, 3)
    assert conv.pad_mode == "replicate"
    _, channels, images, height, width = shape
    step = max(1, PIECE // (channels * (images + 2) * (width + 2) * weight.element_size()))
    step = -(-height // -(-height // step))  # as many, of about equal height
    above = torch.empty(0)
    for start in range(0, height, step):
        stop = min(start + step, height)
        size = (1, channels, 2 + images, stop - start + 2, width + 2)
        window = torch.empty(size, dtype=weight.dtype, device=weight.device, memory_format=_layout(weight))
        fresh = window[:, :, 2:]
        last = min(stop + 1, height)
        write(start, last, fresh[:, :, :, 1 : 1 + last - start, 1:-1])
        fresh[:, :, :, 0, 1:-1] = above if start else fresh[:, :, :, 1, 1:-1]
        if stop == height:
            fresh[:, :, :, -1, 1:-1] = fresh[:, :, :, -2, 1:-1]
        above = fresh[:, :, :, -2, 1:-1].clone()
        for rim, edge in ((0, 1), (-1, -2)):  # with the corners
            fresh[..., rim] = fresh[..., edge]
        window[:, :, :2] = fresh[:, :, :1]
        yield slice(start, stop), window


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format
