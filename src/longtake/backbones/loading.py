"""A model folder becomes a backbone: plain diffusers layout, Wan's classes, safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from longtake.backbones.backbone import Backbone, kernels_of
from longtake.backbones.codebooks import codebook_sizes, load_codebooks
from longtake.backbones.codec import Codec
from longtake.backbones.prompts import PromptEncoder
from longtake.backbones.registry import find_model
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.skeletons import quiet, skeleton
from longtake.backbones.weights import check_fit, read_json, read_shapes, read_tensors, weight_files
from longtake.errors import ModelError
from longtake.packing import Patchify, trained_kernels
from longtake.schedule import Kernel

__all__ = [
    "HISTORY",
    "SETTINGS",
    "Outline",
    "inspect_model",
    "load_backbone",
    "load_codec",
    "load_prompts",
    "load_settings",
    "load_transformer",
]

SETTINGS = "longtake.json"
HISTORY = "history_patch_embed."  # where the transformer's file keeps the weights of `Patchify`
Network = TypeVar("Network", bound=nn.Module)
_PARTS = ("transformer", "vae", "text_encoder", "tokenizer")


@dataclass(frozen=True, slots=True)
class Outline:
    """What a model folder says of itself before its weights are loaded."""

    settings: BackboneSettings
    temporal_ratio: int
    spatial_ratio: int
    channels: int  # of a latent
    patch: Kernel
    kernels: tuple[Kernel, ...]  # that it has history weights for
    codebooks: tuple[int, ...]  # words of each codebook


def inspect_model(name_or_path: str | Path) -> Outline:
    """The outline of a model whose files are whole and fit their configs; its weights are not loaded.

    Raises:
        ModelError: the model is unknown, incomplete, unsafe, of another architecture, or does not fit its configs.
    """
    folder = find_model(name_or_path)
    _check_parts(folder)
    settings = load_settings(folder)
    codec = _codec_skeleton(folder / "vae")
    prompts = _prompts_skeleton(folder)
    transformer = _transformer_skeleton(folder / "transformer", settings)
    _check_widths(folder, codec.config["z_dim"], prompts.config.d_model, transformer.config)
    return Outline(
        settings=settings,
        temporal_ratio=codec.config["scale_factor_temporal"],
        spatial_ratio=codec.config["scale_factor_spatial"],
        channels=codec.config["z_dim"],
        patch=Kernel(*transformer.config["patch_size"]),
        kernels=tuple(sorted(trained_kernels(transformer.history_patch_embed.state_dict()), key=lambda k: k.t)),
        codebooks=codebook_sizes(folder),
    )


def load_backbone(
    name_or_path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Backbone:
    """The model of that name, or in that folder.

    A Wan checkpoint without `longtake.json` gets the default settings, and history weights begun from its own patch
    embedding. Weights are computed with in float32 on a CPU (bfloat16 is a hundred times slower there) and in bfloat16
    elsewhere, unless `dtype` says otherwise.

    Raises:
        ModelError: the model is unknown, incomplete, unsafe, of another architecture, or does not fit its configs.
    """
    folder = find_model(name_or_path)
    _check_parts(folder)
    device = torch.device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    settings = load_settings(folder)
    codec = load_codec(folder / "vae", device, dtype)
    prompts = load_prompts(folder, settings.text_length, device, dtype)
    transformer = load_transformer(folder / "transformer", settings, device, dtype)
    _check_widths(folder, codec.channels, prompts.encoder.config.d_model, transformer.config)
    codebooks = load_codebooks(folder, codec, device)
    return Backbone.assemble(str(name_or_path), transformer, codec, prompts, settings, codebooks)


def load_settings(folder: Path) -> BackboneSettings:
    """The settings in a model folder, or the defaults where it has none."""
    path = folder / SETTINGS
    if not path.is_file():
        return BackboneSettings()
    try:
        return BackboneSettings.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"{path}: {place}: {message}" if place else f"{path}: {message}") from error


def load_transformer(
    folder: Path, settings: BackboneSettings, device: torch.device, dtype: torch.dtype
) -> WanTransformer3DModel:
    """The transformer, with the history weights that its file holds or, where it has none, fresh ones."""
    outline = _transformer_skeleton(folder, settings)
    with quiet():
        transformer = WanTransformer3DModel.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    trained = read_tensors(weight_files(folder, "diffusion_pytorch_model"), HISTORY)
    patchify = Patchify(transformer.patch_embedding, trained_kernels(outline.history_patch_embed.state_dict()))
    if trained:
        patchify.load_state_dict(trained)
    transformer.history_patch_embed = patchify
    return _placed(transformer, device)


def load_codec(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Codec:
    """The codec in a folder, the `vae` of a model."""
    _codec_skeleton(folder)
    with quiet():
        network = AutoencoderKLWan.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    return Codec(_placed(network, device))


def load_prompts(folder: Path, text_length: int, device: torch.device, dtype: torch.dtype) -> PromptEncoder:
    """The text encoder and tokenizer of a model folder."""
    _prompts_skeleton(folder)
    with quiet():
        encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=dtype, use_safetensors=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    return PromptEncoder(_placed(encoder, device), tokenizer, text_length)


def _check_parts(folder: Path) -> None:
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != "WanPipeline":
        raise ModelError(f"{folder}: model_index.json says {index.get('_class_name')}; longtake knows WanPipeline")
    absent = [part for part in _PARTS if not (folder / part).is_dir()]
    if absent:
        raise ModelError(f"{folder}: the model lacks {', '.join(absent)}/")


def _check_widths(folder: Path, channels: int, text: int, transformer: Mapping[str, Any]) -> None:
    for what, has, wants in (
        ("channels of a latent", channels, transformer["in_channels"]),
        ("channels of the prediction", channels, transformer["out_channels"]),
        ("width of the text", text, transformer["text_dim"]),
    ):
        if has != wants:
            raise ModelError(f"{folder}: {what}: {has}, but the transformer is made for {wants}")


def _transformer_skeleton(folder: Path, settings: BackboneSettings) -> WanTransformer3DModel:
    """The transformer without its weights, which fit; its history weights are those it has or would begin with."""
    config = _config(folder, "WanTransformer3DModel")
    found = read_shapes(weight_files(folder, "diffusion_pytorch_model"))
    network = skeleton(folder, lambda: WanTransformer3DModel.from_config(config))
    check_fit(folder, {k: s for k, s in found.items() if not k.startswith(HISTORY)}, _shapes(network))
    history = {name: shape for name, shape in found.items() if name.startswith(HISTORY)}
    trained = trained_kernels(name.removeprefix(HISTORY) for name in history)
    patchify = Patchify(network.patch_embedding, {*kernels_of(settings.schedules), *trained})
    if history:
        check_fit(folder, history, {HISTORY + name: shape for name, shape in _shapes(patchify).items()})
    network.history_patch_embed = patchify
    return network


def _codec_skeleton(folder: Path) -> AutoencoderKLWan:
    """The codec without its weights, which fit."""
    config = _config(folder, "AutoencoderKLWan")
    network = skeleton(folder, lambda: AutoencoderKLWan.from_config(config))
    check_fit(folder, read_shapes(weight_files(folder, "diffusion_pytorch_model")), _shapes(network))
    return network


def _prompts_skeleton(folder: Path) -> UMT5EncoderModel:
    """The text encoder without its weights, which fit; the tokenizer is there too."""
    part = folder / "text_encoder"
    config = read_json(part / "config.json")
    if config.get("model_type") != "umt5":
        raise ModelError(f"{part}: config.json says {config.get('model_type')}; a Wan model reads text with umt5")
    network = skeleton(part, lambda: UMT5EncoderModel(UMT5Config.from_dict(config)))
    tied = {"shared.weight", "encoder.embed_tokens.weight"}  # one tensor under two names
    found = read_shapes(weight_files(part, "model"))
    if tied & found.keys():
        found |= {name: found[next(iter(tied & found.keys()))] for name in tied - found.keys()}
    check_fit(part, found, _shapes(network))
    if not (folder / "tokenizer" / "tokenizer.json").is_file():
        raise ModelError(f"{folder / 'tokenizer' / 'tokenizer.json'} is missing")
    return network


def _config(folder: Path, class_name: str) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if config.get("_class_name") != class_name:
        raise ModelError(f"{folder}: config.json says {config.get('_class_name')}; longtake knows {class_name}")
    return config


def _placed(network: Network, device: torch.device | str) -> Network:
    return network.to(device).eval()


def _shapes(network: nn.Module) -> Mapping[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
