"""New networks: the diffusers and transformers classes of a Wan model, at any size, before any training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

__all__ = [
    "CodecShape",
    "TextShape",
    "TransformerShape",
    "new_codec",
    "new_text_encoder",
    "new_tokenizer",
    "new_transformer",
]


@dataclass(frozen=True, slots=True)
class CodecShape:
    """A causal video codec with 4x time and 8x space: pixel unshuffle by 2, then two halvings of space and time."""

    encoder_width: int = 32
    decoder_width: int = 32
    channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """A Wan transformer; its width is `heads * head_size`."""

    layers: int = 8
    heads: int = 6
    head_size: int = 64
    feedforward: int = 1152
    channels: int = 16
    text_width: int = 192
    frequencies: int = 256


@dataclass(frozen=True, slots=True)
class TextShape:
    """A T5-like text encoder."""

    width: int = 192
    layers: int = 3
    heads: int = 4
    feedforward: int = 384


def new_codec(shape: CodecShape) -> AutoencoderKLWan:
    """A codec of that shape, initialized so that its early latents carry signal.

    Each residual block begins as the identity (its second convolution is zero) and the posterior begins narrow
    (log-variance near -6): with diffusers' initialization unit noise drowns the mean, and training stalls near 15 dB.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanResidualBlock

    codec = AutoencoderKLWan(
        base_dim=shape.encoder_width,
        decoder_base_dim=shape.decoder_width,
        z_dim=shape.channels,
        dim_mult=list(shape.multipliers),
        num_res_blocks=shape.blocks,
        temperal_downsample=[True] * (len(shape.multipliers) - 1),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        latents_mean=[0.0] * shape.channels,
        latents_std=[1.0] * shape.channels,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )
    for module in codec.modules():
        if isinstance(module, WanResidualBlock):
            for parameter in module.conv2.parameters():
                nn.init.zeros_(parameter)
    with torch.no_grad():
        for parameter, change in zip(codec.quant_conv.parameters(), (lambda w: 0.1 * w, lambda _: -6.0), strict=True):
            parameter[shape.channels :] = change(parameter[shape.channels :])  # weight, then bias of the log-variance
    return codec


def new_transformer(shape: TransformerShape) -> WanTransformer3DModel:
    """A Wan transformer of that shape, its output projection zero, so that it begins by predicting no velocity."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head_size,
        in_channels=shape.channels,
        out_channels=shape.channels,
        text_dim=shape.text_width,
        freq_dim=shape.frequencies,
        ffn_dim=shape.feedforward,
        num_layers=shape.layers,
        cross_attn_norm=True,
        rope_max_seq_len=1024,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return transformer


def new_text_encoder(shape: TextShape, vocabulary: int) -> UMT5EncoderModel:
    """A text encoder for `vocabulary` token numbers."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=shape.width,
        d_kv=shape.width // shape.heads,
        d_ff=shape.feedforward,
        num_layers=shape.layers,
        num_heads=shape.heads,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=64,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config)


def new_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one number a word, lower case, punctuation apart; words it does not know become `<unk>`."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    table = {"<pad>": 0, "</s>": 1, "<unk>": 2, ",": 3, ".": 4}
    for word in sorted(set(words) - set(table)):
        table[word] = len(table)
    tokenizer = Tokenizer(WordLevel(table, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
