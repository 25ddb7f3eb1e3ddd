"""What Wan and Helios are made of beside their transformers: the codec, the text encoder and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from longtake.backbones.codec import Codec
from longtake.backbones.outline import Loaded, Outline
from longtake.backbones.parts import FoundModel
from longtake.backbones.prompts import PromptEncoder
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.skeletons import placed, quiet, shapes_of, skeleton
from longtake.backbones.weights import check_fit, read_json, read_shapes, weight_files
from longtake.errors import ModelError
from longtake.schedule import Kernel

__all__ = [
    "check_widths",
    "codec_skeleton",
    "config_in",
    "load_codec",
    "load_prompts",
    "outline_of",
    "prompts_skeleton",
]


def outline_of(
    found: FoundModel,
    settings: BackboneSettings,
    codec: AutoencoderKLWan,
    transformer: WanTransformer3DModel | HeliosTransformer3DModel,
    kernels: Iterable[Kernel],
    codebooks: tuple[int, ...] = (),
) -> Outline:
    """What a model of these parts says of itself; `kernels` are those that it has history weights for."""
    return Outline(
        settings=settings,
        temporal_ratio=codec.config["scale_factor_temporal"],
        spatial_ratio=codec.config["scale_factor_spatial"],
        channels=codec.config["z_dim"],
        patch=Kernel(*transformer.config["patch_size"]),
        kernels=tuple(sorted(kernels, key=lambda kernel: kernel.t)),
        codebooks=codebooks,
        family=found.row.family,
        buckets=found.row.buckets,
    )


def load_codec(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Codec:
    """The codec in a folder, the `vae` of a model."""
    codec_skeleton(folder)
    with quiet():
        network = AutoencoderKLWan.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    return Codec(placed(network, device))


def codec_skeleton(folder: Path) -> AutoencoderKLWan:
    """The codec without its weights, which fit."""
    config = config_in(folder, "AutoencoderKLWan")
    network = skeleton(folder, lambda: AutoencoderKLWan.from_config(config))
    check_fit(folder, read_shapes(weight_files(folder, "diffusion_pytorch_model")), shapes_of(network))
    return network


def load_prompts(found: FoundModel, text_length: int, how: Loaded) -> PromptEncoder:
    """The text encoder with its tokenizer."""
    path, dtype = found.path_of("text_encoder"), how.computes_in
    with quiet():
        encoder = UMT5EncoderModel.from_pretrained(path, dtype=dtype, use_safetensors=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(found.path_of("tokenizer"))
    return PromptEncoder(how.to_read(encoder), tokenizer, text_length)


def prompts_skeleton(found: FoundModel) -> UMT5EncoderModel:
    """The text encoder without its weights, which fit; the tokenizer is there too."""
    part, tokenizer = found.path_of("text_encoder"), found.path_of("tokenizer") / "tokenizer.json"
    config = read_json(part / "config.json")
    if config.get("model_type") != "umt5":
        raise ModelError(f"{part}: config.json says {config.get('model_type')}; Wan and Helios read text with umt5")
    network = skeleton(part, lambda: UMT5EncoderModel(UMT5Config.from_dict(config)))
    tied = {"shared.weight", "encoder.embed_tokens.weight"}  # one tensor under two names
    found_shapes = read_shapes(weight_files(part, "model"))
    if tied & found_shapes.keys():
        one = found_shapes[next(iter(tied & found_shapes.keys()))]
        found_shapes |= dict.fromkeys(tied - found_shapes.keys(), one)
    check_fit(part, found_shapes, shapes_of(network))
    if not tokenizer.is_file():
        raise ModelError(f"{tokenizer} is missing")
    return network


def check_widths(name: str, channels: int, text: int | None, transformer: Mapping[str, Any]) -> None:
    """Checks that a transformer with this config is made for such latents and such text.

    Raises:
        ModelError: it is not.
    """
    for what, has, wants in (
        ("channels of a latent", channels, transformer["in_channels"]),
        ("channels of the prediction", channels, transformer["out_channels"]),
        ("width of the text", text, transformer["text_dim"]),
    ):
        if has != wants:
            raise ModelError(f"{name}: {what}: {has}, but the transformer is made for {wants}")


def config_in(folder: Path, class_name: str) -> dict[str, Any]:
    """The config in a folder, of this class.

    Raises:
        ModelError: there is none, or it is of another.
    """
    config = read_json(folder / "config.json")
    if config.get("_class_name") != class_name:
        raise ModelError(f"{folder}: config.json says {config.get('_class_name')}; longtake knows {class_name}")
    return config
