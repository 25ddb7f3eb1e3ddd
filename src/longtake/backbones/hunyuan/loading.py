"""The parts of a HunyuanVideo or FramePack model become a backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from transformers import AutoTokenizer, CLIPTextModel, LlamaModel, SiglipImageProcessorPil, SiglipVisionModel

from longtake.backbones.adapting import adapt
from longtake.backbones.backbone import Backbone, kernels_of
from longtake.backbones.checking import check_model
from longtake.backbones.hunyuan.codec import HunyuanCodec
from longtake.backbones.hunyuan.images import ImageEncoder
from longtake.backbones.hunyuan.network import OWN_KERNELS, begin_history, project_in_float32
from longtake.backbones.hunyuan.prompts import HunyuanPromptEncoder
from longtake.backbones.hunyuan.reader import HunyuanReader
from longtake.backbones.outline import Loaded, Outline, settings_of
from longtake.backbones.parts import FoundModel
from longtake.backbones.single_file import config_for, load_transformer_file, open_tensors
from longtake.backbones.skeletons import placed, quiet, skeleton
from longtake.backbones.weights import read_json
from longtake.errors import ModelError
from longtake.schedule import Kernel

__all__ = ["hunyuan_outline", "hunyuan_skeleton", "load_hunyuan", "load_hunyuan_codec"]


def hunyuan_outline(found: FoundModel) -> Outline:
    """The outline of a model, after its files were checked."""
    check_model(found)
    settings = settings_of(found)
    codec = read_json(found.path_of("vae") / "config.json")
    transformer = _skeleton(found)
    _check_fit(found.row.name, transformer.config, codec)
    own = OWN_KERNELS if "Framepack" in found.row.network else {}
    side = transformer.config["patch_size"]
    return Outline(
        settings=settings,
        temporal_ratio=codec.get("temporal_compression_ratio", 4),
        spatial_ratio=codec.get("spatial_compression_ratio", 8),
        channels=codec.get("latent_channels", 16),
        patch=Kernel(transformer.config["patch_size_t"], side, side),
        kernels=tuple(sorted({*own, *kernels_of(settings.schedules)}, key=lambda kernel: kernel.t)),
        codebooks=(),
        family="hunyuan",
        buckets=found.row.buckets,
    )


def hunyuan_skeleton(found: FoundModel) -> Any:
    """The transformer without its weights, those for history begun."""
    network = _skeleton(found)
    begin_history(network, kernels_of(settings_of(found).schedules))
    return network


def load_hunyuan(found: FoundModel, how: Loaded) -> Backbone:
    """The backbone, its text and image encoders still on disk: they are loaded when a prompt is to be read."""
    check_model(found)
    settings, device, dtype = settings_of(found), torch.device(how.device), how.computes_in
    codec = load_hunyuan_codec(found.path_of("vae"), device)
    transformer = _load_transformer(found, dtype)
    _check_fit(found.row.name, transformer.config, codec.network.config)
    begin_history(transformer, kernels_of(settings.schedules))
    reports = adapt(placed(transformer, how.home), how)
    project_in_float32(transformer)
    encoders = {part.name for part in found.row.parts}

    def words() -> HunyuanPromptEncoder:
        return _load_words(found, how)

    def images() -> ImageEncoder:
        return _load_images(found, how)

    reader = HunyuanReader(words, images if "image_encoder" in encoders else None)
    backbone = Backbone.assemble(found.row.name, transformer, codec, reader, settings)
    return replace(backbone, remarks=tuple(map(str, reports)))


def load_hunyuan_codec(folder: Path, device: torch.device) -> HunyuanCodec:
    """The codec in a folder, in float16 as the official program has it; in float32 on a CPU.

    Its layers pass folded, in pieces: equal to diffusers' decoder to round-off, in a third of its memory.
    """
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    with quiet():
        network = AutoencoderKLHunyuanVideo.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    last = device.type == "cuda"  # where convolutions are faster in that layout
    return HunyuanCodec(placed(network, device), layers="folded", channels_last=last)


def _load_transformer(found: FoundModel, dtype: torch.dtype) -> Any:
    path = found.path_of("transformer")
    if path.is_file():
        return load_transformer_file(path, found.row.network, dtype)
    kind = getattr(diffusers, found.row.network)
    with quiet():
        return kind.from_pretrained(path, torch_dtype=dtype, use_safetensors=True).eval()


def _load_words(found: FoundModel, how: Loaded) -> HunyuanPromptEncoder:
    dtype = how.reads_in
    with quiet():
        llama = LlamaModel.from_pretrained(found.path_of("text_encoder"), dtype=dtype, use_safetensors=True)
        clip = CLIPTextModel.from_pretrained(found.path_of("text_encoder_2"), dtype=dtype, use_safetensors=True)
    tokenizers = [AutoTokenizer.from_pretrained(found.path_of(name)) for name in ("tokenizer", "tokenizer_2")]
    return HunyuanPromptEncoder(how.to_read(llama), tokenizers[0], how.to_read(clip), tokenizers[1])


def _load_images(found: FoundModel, how: Loaded) -> ImageEncoder:
    path = found.path_of("image_encoder")
    with quiet():
        siglip = SiglipVisionModel.from_pretrained(path, dtype=how.reads_in, use_safetensors=True)
    processor = SiglipImageProcessorPil.from_pretrained(found.path_of("feature_extractor"))
    return ImageEncoder(how.to_read(siglip), processor)


def _skeleton(found: FoundModel) -> Any:
    path, kind = found.path_of("transformer"), found.row.network
    config = config_for(open_tensors(path), kind) if path.is_file() else read_json(path / "config.json")
    return skeleton(path, lambda: getattr(diffusers, kind).from_config(config))


def _check_fit(name: str, transformer: Any, codec: Any) -> None:
    has, wants = codec.get("latent_channels", 16), transformer["in_channels"]
    if has != wants:
        raise ModelError(f"{name}: channels of a latent: {has}, but the transformer is made for {wants}")
