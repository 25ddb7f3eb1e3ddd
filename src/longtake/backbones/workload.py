"""What a section asks of a network: tokens, operations, and the bytes and operations of decoding it. Arithmetic only.

    linear       2 x tokens x weights that a token meets
    attention    4 x tokens x tokens x width, in every block

One operation is one multiplication or one addition, as PyTorch's own counter has it.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.normalization import AdaLayerNormZero, AdaLayerNormZeroSingle
from diffusers.models.transformers.transformer_hunyuan_video import (
    HunyuanVideoTransformer3DModel,
    HunyuanVideoTransformerBlock,
)
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from longtake.backbones.blueprints import Blueprint
from longtake.backbones.codec import Codec, decoded_together, live_bytes
from longtake.backbones.hunyuan.buckets import Bucket
from longtake.backbones.placement.layout import repeated_blocks
from longtake.errors import ModelError

__all__ = [
    "Decoding",
    "Operations",
    "Tiling",
    "Tokens",
    "decoding_of",
    "operations_of",
    "tilings_of",
    "tokens_of",
    "traffic_of",
]

TEXT_TOKENS = 256  # that Llama reads of a prompt at most (`hunyuan/prompts.py`), cut to its own at batch 1
SIGLIP_TOKENS, CLIP_TOKENS = 729, 257  # of one picture: 27 x 27, and 16 x 16 and one for the whole

# Bytes that pass the memory of the device beside the matrix products: so many times each token's vector in each block,
# norms, rotations, gates and copies together. The eager step of the 13 B network on an H100 takes 1.153 s, of which its
# products take 0.764 at the rates measured beside it; the rest at 3.00 TB/s is this. Compiled blocks have 51 of it, and
# fused ones so much that an H200 makes the step in 0.830 s, as it did, whose products would take 0.763 at its rates.
TRAFFIC, FUSED_TRAFFIC = 171.0, 31.0

Tiling = Literal["whole", "halves", "tiles"]  # of HunyuanVideo's pictures: not, few of up to 384 pixels, many of 256
_HALF, _OVERLAP, _TILE = 384, 64, 256  # pixels of a side
# Live tensors of HunyuanVideo's decoder, layers in pieces: 5.9 GiB at 640 x 608 and 2.1 GiB in tiles of 256 x 256.
_PIECES_BYTES = (5.9 - 2.1) * 2**30 / (640 * 608 - _TILE**2)  # a pixel
_PIECES_ALWAYS = 2.1 * 2**30 - _TILE**2 * _PIECES_BYTES
# What convolutions need beside live tensors, as a share of them. Pieces are small: of 7.2 GiB that were measured for
# whole pictures and 3.2 for tiles 1.0 are weights and held images. diffusers' whole layers: 21.2 GiB for 14.3, an H200.
_PIECES_WORKSPACE, _WHOLE_WORKSPACE = 0.1, 0.5
# Images that are held beside these for each frame of a section: two sections decoded together, their tiles in time
# (17 images for each 12), and the sections joined.
_HELD = 4 * (2 + 2 * 17 / 12 + 2)
# One section of nine frames whose tiles are shared with the one before takes 420 TFLOP at 640 x 608. Tiled it took
# 1.57 s instead of 1.21 in halves (H100), 3.12 instead of 1.38 in tiles (H200).
_HUNYUAN_OPERATIONS = 420e12 / (9 * 4 * 640 * 608)  # an image's pixel
_TILED_WORK: dict[Tiling, float] = {"whole": 1.0, "halves": 1.57 / 1.21, "tiles": 3.12 / 1.38}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one evaluation of a network reads for one section."""

    noisy: int
    history: int
    text: int
    image: int  # of a start image, from an image encoder
    joint: bool  # text and image stand in one sequence with the rest; else they are looked at across

    @property
    def sequence(self) -> int:
        """The longest that the blocks see."""
        return self.noisy + self.history + (self.text + self.image if self.joint else 0)


@dataclass(frozen=True, slots=True)
class Operations:
    """Multiplications and additions of one evaluation."""

    linear: float
    attention: float


@dataclass(frozen=True, slots=True)
class Decoding:
    """What the images of one section take."""

    weights: int  # bytes
    activations: int  # bytes: live tensors of the decoder
    workspace: int  # bytes that convolutions of a GPU need for themselves
    held: int  # bytes: images that wait for others
    operations: float


def tokens_of(blueprint: Blueprint, noisy: int, history: int) -> Tokens:
    """The tokens of a section that makes `noisy` and sees `history` of them.

    >>> from longtake.backbones.blueprints import blueprint_of
    >>> tokens_of(blueprint_of("framepack-i2v"), noisy=13680, history=3820).sequence
    18485
    """
    network, config = blueprint.transformer, _config(blueprint.transformer)
    if isinstance(network, HunyuanVideoTransformer3DModel | HunyuanVideoFramepackTransformer3DModel):
        image = SIGLIP_TOKENS if config.get("has_image_proj") else 0
        return Tokens(noisy, history, min(TEXT_TOKENS, blueprint.settings.text_length), image, joint=True)
    image = CLIP_TOKENS if config.get("added_kv_proj_dim") else 0
    return Tokens(noisy, history, blueprint.settings.text_length, image, joint=False)


def operations_of(network: nn.Module, tokens: Tokens) -> Operations:
    """The operations of one forward; embeddings and modulation, a thousandth of them, are left out.

    Raises:
        ModelError: the network's blocks are unknown.
    """
    n, across = tokens.sequence, 0 if tokens.joint else tokens.text + tokens.image
    linear = attention = 0.0
    for block in repeated_blocks(network):
        own, crossed = _weights(block)
        linear += 2 * (n * own + across * crossed)
        attention += 4 * n * (n + across) * _width(network)
    return Operations(linear, attention)


def traffic_of(network: nn.Module, tokens: Tokens, fused: bool = False) -> float:
    """Bytes that pass the device's memory in one forward beside the matrix products.

    With `fused`, HunyuanVideo's blocks are as `fuse_blocks` makes them; others cannot be.
    """
    blocks = repeated_blocks(network)
    item = next(blocks[-1].parameters()).itemsize
    known = isinstance(network, HunyuanVideoTransformer3DModel | HunyuanVideoFramepackTransformer3DModel)
    times = FUSED_TRAFFIC if fused and known else TRAFFIC
    return times * tokens.sequence * _width(network) * item * len(blocks)


def decoding_of(blueprint: Blueprint, size: Bucket, frames: int, tiling: Tiling = "whole") -> Decoding:
    """What decoding a section of so many frames takes, at a size of images.

    HunyuanVideo's decoder passes its layers in pieces, the whole picture or tiles of it; Wan's decodes as many frames
    at once as it does anyway, and knows no tiles.

    Raises:
        ModelError: the codec is of neither.
    """
    codec, pixels = blueprint.codec, size.height * size.width
    item = next(codec.parameters()).itemsize
    weights = sum(parameter.nbytes for parameter in codec.parameters())
    images = frames * blueprint.temporal_ratio
    if isinstance(codec, AutoencoderKLHunyuanVideo):
        live = (_PIECES_ALWAYS + _PIECES_BYTES * _tile_pixels(size, tiling)) * item / 2  # counted in half precision
        held = math.ceil(3 * pixels * item * _HELD * frames)
        operations = _HUNYUAN_OPERATIONS * images * pixels * _TILED_WORK[tiling]
        return Decoding(weights, math.ceil(live), int(_PIECES_WORKSPACE * live), held, operations)
    if isinstance(codec, AutoencoderKLWan):
        together = decoded_together(codec, frames, size.height, size.width)
        live = live_bytes(codec, together, size.height, size.width)
        own = {name: value for name, value in _config(codec).items() if not name.startswith("_")}
        operations = _wan_operations(json.dumps(own)) * images * pixels
        return Decoding(weights, live, int(_WHOLE_WORKSPACE * live), 3 * pixels * item * images, operations)
    raise ModelError(f"{blueprint.name}: {type(codec).__name__} is not one of the codecs that are known here")


def tilings_of(blueprint: Blueprint, size: Bucket) -> tuple[Tiling, ...]:
    """The ways in which the codec can decode pictures of this size, those that need more memory first."""
    if not isinstance(blueprint.codec, AutoencoderKLHunyuanVideo):
        return ("whole",)
    ways: tuple[Tiling, ...] = ("whole", "halves", "tiles")
    return tuple(way for way in ways if way == "whole" or _tile_pixels(size, way) < size.height * size.width)


def _tile_pixels(size: Bucket, tiling: Tiling) -> int:
    """Pixels of a picture that pass the decoder together."""

    def half(side: int) -> int:
        count = math.ceil(side / (_HALF - _OVERLAP))
        return min(side, math.ceil(side / count / 8) * 8 + _OVERLAP)  # a latent has 8 pixels

    sides = {
        "whole": (size.height, size.width),
        "halves": (half(size.height), half(size.width)),
        "tiles": (min(size.height, _TILE), min(size.width, _TILE)),
    }
    return math.prod(sides[tiling])


@functools.cache
def _wan_operations(config: str) -> float:
    """Operations of the codec with this config for one pixel of one image.

    Counted on a small picture: they grow as the picture does.
    """
    with torch.device("meta"):
        network: Any = AutoencoderKLWan.from_config(json.loads(config))
    codec = Codec(network)
    stream, latents = codec.stream(), torch.empty(1, codec.channels, 2, 16, 16, device="meta")
    stream.decode(latents)
    with FlopCounterMode(display=False) as counter:
        images = stream.decode(latents)
    return counter.get_total_flops() / images[0, 0].numel()


def _weights(block: nn.Module) -> tuple[int, int]:
    """Weights that a token of the sequence meets in a block, and those that one meets which is looked at across."""
    modulation = {
        id(linear)
        for norm in block.modules()
        if isinstance(norm, AdaLayerNormZero | AdaLayerNormZeroSingle)
        for linear in norm.modules()
    }
    own = crossed = 0
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and id(module) not in modulation:
            count = module.in_features * module.out_features
            if name.startswith("attn2.") and any(part in name for part in ("to_k", "to_v", "add_k", "add_v")):
                crossed += count
            else:
                own += count
    # A double block has the same weights twice: for the picture's tokens, and for those of text.
    return (own // 2 if isinstance(block, HunyuanVideoTransformerBlock) else own), crossed


def _config(network: nn.Module) -> dict:
    return dict(network.config)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _width(network: nn.Module) -> int:
    config = _config(network)
    return config["num_attention_heads"] * config["attention_head_dim"]
