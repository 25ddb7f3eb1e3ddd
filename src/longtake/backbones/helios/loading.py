"""The parts of a Helios become a backbone. All but its transformer are Wan's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel

from longtake.backbones.adapting import adapt
from longtake.backbones.backbone import Backbone, kernels_of
from longtake.backbones.helios.network import OWN_KERNELS, check_settings
from longtake.backbones.outline import Loaded, Outline, settings_of
from longtake.backbones.parts import FoundModel
from longtake.backbones.prompts import LentPromptEncoder, PromptEncoder
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.skeletons import placed, quiet, shapes_of, skeleton
from longtake.backbones.wan_parts import (
    check_widths,
    codec_skeleton,
    config_in,
    load_codec,
    load_prompts,
    outline_of,
    prompts_skeleton,
)
from longtake.backbones.weights import check_fit, read_json, read_shapes, weight_files
from longtake.errors import ModelError

__all__ = ["helios_outline", "helios_skeleton", "load_helios"]


def helios_outline(found: FoundModel) -> Outline:
    """The outline of a model whose files are whole and fit their configs."""
    settings = settings_of(found)
    codec, prompts = codec_skeleton(found.path_of("vae")), prompts_skeleton(found)
    transformer = _skeleton(_folder_of(found), settings)
    check_widths(found.row.name, codec.config["z_dim"], prompts.config.d_model, transformer.config)
    return outline_of(found, settings, codec, transformer, OWN_KERNELS)


def helios_skeleton(found: FoundModel) -> HeliosTransformer3DModel:
    """The transformer without its weights, which has all of its history's."""
    return _skeleton(_folder_of(found), settings_of(found))


def load_helios(found: FoundModel, how: Loaded) -> Backbone:
    """The backbone; its text encoder is still on disk where networks rest until they are wanted."""
    settings, dtype = settings_of(found), how.computes_in
    prompts_skeleton(found)
    codec = load_codec(found.path_of("vae"), torch.device(how.device), dtype)
    folder = _folder_of(found)
    _skeleton(folder, settings)
    with quiet():
        transformer = HeliosTransformer3DModel.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    width = read_json(found.path_of("text_encoder") / "config.json").get("d_model")
    check_widths(found.row.name, codec.channels, width, transformer.config)
    reports = adapt(placed(transformer, how.home), how)

    def prompts() -> PromptEncoder:
        return load_prompts(found, settings.text_length, how)

    reader = LentPromptEncoder(prompts) if how.rest else prompts()
    backbone = Backbone.assemble(found.row.name, transformer, codec, reader, settings)
    return replace(backbone, remarks=tuple(map(str, reports)))


def _folder_of(found: FoundModel) -> Path:
    path = found.path_of("transformer")
    if path.is_file():
        raise ModelError(f"{path}: a file does not say how a Helios divides its history: name the transformer's folder")
    return path


def _skeleton(folder: Path, settings: BackboneSettings) -> HeliosTransformer3DModel:
    """The transformer without its weights, which fit, and which have all that the settings ask for."""
    config = config_in(folder, "HeliosTransformer3DModel")
    network = skeleton(folder, lambda: HeliosTransformer3DModel.from_config(config))
    check_fit(folder, read_shapes(weight_files(folder, "diffusion_pytorch_model")), shapes_of(network))
    check_settings(network, settings)
    foreign = set(kernels_of(settings.schedules)) - OWN_KERNELS.keys()
    if foreign:
        raise ModelError(f"{folder}: the model has no history weights for the kernel {foreign.pop()} of its settings")
    return network
