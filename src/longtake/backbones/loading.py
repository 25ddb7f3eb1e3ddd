"""A model becomes a backbone: plain diffusers layout, safetensors, in one folder or in the parts of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from longtake.backbones.adapting import adapt
from longtake.backbones.backbone import AnyCodec, Backbone, kernels_of
from longtake.backbones.checking import check_part
from longtake.backbones.codebooks import codebook_sizes, load_codebooks
from longtake.backbones.families import WAN
from longtake.backbones.helios.loading import helios_outline, helios_skeleton, load_helios
from longtake.backbones.hunyuan.loading import hunyuan_outline, hunyuan_skeleton, load_hunyuan, load_hunyuan_codec
from longtake.backbones.lora import Lora, LoraReport, foresee_loras, meant_for, outline_lora
from longtake.backbones.lora.asked import Network
from longtake.backbones.outline import Loaded, Outline, load_settings, settings_of
from longtake.backbones.parts import FoundModel
from longtake.backbones.prompts import LentPromptEncoder, PromptEncoder
from longtake.backbones.registry import locate, present
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.single_file import config_for, load_transformer_file, open_tensors
from longtake.backbones.skeletons import placed, quiet, shapes_of, skeleton
from longtake.backbones.wan import frames_beside, known_frames
from longtake.backbones.wan_images import ClipEncoder, WanReader
from longtake.backbones.wan_parts import (
    check_widths,
    codec_skeleton,
    config_in,
    load_codec,
    load_prompts,
    outline_of,
    prompts_skeleton,
)
from longtake.backbones.weights import HISTORY, check_fit, read_json, read_shapes, read_tensors, weight_files
from longtake.errors import ModelError
from longtake.packing import Patchify, trained_kernels

__all__ = [
    "Loaded",
    "Outline",
    "foresee",
    "inspect_model",
    "load_any_codec",
    "load_backbone",
    "load_codec",
    "load_settings",
    "load_transformer",
]


def inspect_model(name_or_path: str | Path, places: Mapping[str, Path] | None = None) -> Outline:
    """The outline of a model whose files are whole and fit their configs; its weights are not loaded.

    Raises:
        ModelError: the model is unknown, incomplete, unsafe, of another architecture, or does not fit its configs.
    """
    places = dict(places or {})
    found = present(locate(name_or_path, places))
    beside = [*found.folder.glob("*"), *found.folder.glob("scheduler/*")] if found.folder else []
    files = sorted({path for part in found.parts for path in part.files} | {path for path in beside if path.is_file()})
    stats = [(path, path.stat()) for path in files]
    stamps = tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return _inspected(str(name_or_path), tuple(places.items()), stamps)


def foresee(name_or_path: str | Path, places: Mapping[str, Path], loras: Sequence[Lora]) -> tuple[LoraReport, ...]:
    """What will become of LoRAs in a model: the headers of their files beside the networks without weights.

    Raises:
        ModelError: the model is as `inspect_model` refuses it, or a LoRA does not fit it.
    """
    if not loras:
        return ()
    found = present(locate(name_or_path, places))
    networks = _NETWORKS if settings_of(found).boundary else _NETWORK
    reports = []
    for network, part in networks.items():
        files = [(outline_lora(lora.file), lora.weight) for lora in meant_for(loras, network)]
        seen = foresee_loras(_SKELETONS[found.row.family](found, part), files)
        reports += [replace(report, network=network or "") for report in seen]
    return tuple(reports)


@lru_cache(maxsize=8)
def _inspected(name: str, places: tuple[tuple[str, Path], ...], stamps: tuple[tuple[Path, int, int], ...]) -> Outline:
    """The outline of a model as long as its files stay as they are: a server asks for it with every request."""
    found = locate(name, dict(places))
    return _OUTLINES[found.row.family](present(found))


@torch.inference_mode(False)  # weights that were made in it could not be moved outside of it
def load_backbone(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    how: Loaded | None = None,
) -> Backbone:
    """The model of that name, or in that folder.

    A checkpoint without `longtake.json` gets the settings of the model known by name that it is or whose networks it
    has, else those that its scheduler tells and the default ones; and history weights begun from its own patch
    embedding where it has none. `how` says more than `device` and `dtype` do.

    Raises:
        ModelError: the model is unknown, incomplete, unsafe, of another architecture, or does not fit its configs; or a
            LoRA does not fit the model.
    """
    how = how or Loaded(device, dtype)
    found = locate(name_or_path, how.places)
    backbone = _LOADERS[found.row.family](present(found), how)
    said = (found.remark,) if found.remark else ()
    return replace(backbone, name=str(name_or_path), remarks=(*said, *backbone.remarks))


def _transformer(path: Path, settings: BackboneSettings, how: Loaded, kind: str) -> WanTransformer3DModel:
    """A Wan transformer from its folder or from a single file."""
    if path.is_dir():
        return load_transformer(path, settings, how.home, how.computes_in)
    transformer = cast(WanTransformer3DModel, load_transformer_file(path, kind, how.computes_in))
    WAN.begin_history(transformer, kernels_of(settings.schedules), transformer.config["out_channels"])
    return placed(transformer, how.home)


@torch.inference_mode(False)
def load_any_codec(
    name_or_path: str | Path, device: torch.device, places: Mapping[str, Path] | None = None
) -> AnyCodec:
    """The codec of a model alone.

    Raises:
        ModelError: the model is unknown or its codec does not fit its config.
    """
    found = present(locate(name_or_path, places))
    if found.row.family == "hunyuan":
        return load_hunyuan_codec(found.path_of("vae"), device)
    return load_codec(found.path_of("vae"), device, Loaded(device).computes_in)


def _wan_outline(found: FoundModel) -> Outline:
    settings = settings_of(found)
    codec = codec_skeleton(found.path_of("vae"))
    prompts = prompts_skeleton(found)
    transformer = _transformer_skeleton(found.path_of("transformer"), settings)
    check_widths(found.row.name, codec.config["z_dim"], prompts.config.d_model, _widths(transformer))
    _check_eyes(found, transformer)
    kernels = trained_kernels(transformer.history_patch_embed.state_dict())
    codebooks = codebook_sizes(found.folder)
    return outline_of(found, settings, codec, transformer, kernels, codebooks)


def _load_wan(found: FoundModel, how: Loaded) -> Backbone:
    settings, device, dtype = settings_of(found), torch.device(how.device), how.computes_in
    prompts_skeleton(found)
    codec = load_codec(found.path_of("vae"), device, dtype)

    def prompts() -> PromptEncoder:
        return load_prompts(found, settings.text_length, how)

    words = LentPromptEncoder(prompts) if how.rest else prompts()
    transformer = _transformer(found.path_of("transformer"), settings, how, found.row.parts[0].kind)
    width = read_json(found.path_of("text_encoder") / "config.json").get("d_model")
    check_widths(found.row.name, codec.channels, width, _widths(transformer))
    _check_eyes(found, transformer)
    reader = WanReader(words, lambda: _load_eyes(found, how), codec) if _sees(found) else words
    reports = adapt(transformer, how, "high" if settings.boundary else None)
    codebooks = load_codebooks(found.folder, codec, device)
    backbone = Backbone.assemble(found.row.name, transformer, codec, reader, settings, codebooks)
    if settings.boundary:
        details = _transformer(found.path_of("transformer_2"), settings, how, found.row.parts[0].kind)
        reports += adapt(details, how, "low")
        calm = settings.model_copy(update={"guidance": settings.second_guidance, "boundary": 0.0})
        backbone = replace(backbone, second=Backbone.assemble(found.row.name, details, codec, reader, calm, codebooks))
    return replace(backbone, remarks=tuple(map(str, reports)))


def load_transformer(
    folder: Path, settings: BackboneSettings, device: torch.device, dtype: torch.dtype
) -> WanTransformer3DModel:
    """The transformer, with the history weights that its file holds or, where it has none, fresh ones."""
    outline = _transformer_skeleton(folder, settings)
    with quiet():
        transformer = WanTransformer3DModel.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    trained = read_tensors(weight_files(folder, "diffusion_pytorch_model"), HISTORY)
    patchify = Patchify(known_frames(transformer), trained_kernels(outline.history_patch_embed.state_dict()))
    if trained:
        patchify.load_state_dict(trained)
    transformer.history_patch_embed = patchify
    return placed(transformer, device)


def _widths(transformer: WanTransformer3DModel) -> Mapping[str, Any]:
    """Its config, with the channels of a latent, which not all of an image-to-video network's are."""
    return {**transformer.config, "in_channels": known_frames(transformer).in_channels}


def _sees(found: FoundModel) -> bool:
    """True if the model has an encoder for its start image."""
    return any(one.part.name == "image_encoder" for one in found.parts)


def _check_eyes(found: FoundModel, transformer: WanTransformer3DModel) -> None:
    """Checks that what reads the start image is there if the transformer wants it, and fits."""
    name, wants = found.row.name, transformer.config["image_dim"]
    if bool(wants) != _sees(found) or frames_beside(transformer) != _sees(found):
        raise ModelError(
            f"{name}: an image-to-video Wan has a transformer of 36 channels with image_dim, an image_encoder and an "
            f"image_processor, another has none of these; here are {transformer.config['in_channels']} channels, "
            f"image_dim {wants}, and {'an' if _sees(found) else 'no'} image_encoder"
        )
    if not wants:
        return
    encoder = next(one for one in found.parts if one.part.name == "image_encoder")
    path = found.path_of("image_encoder")
    check_part(encoder, path)
    has = read_json(path / "config.json").get("hidden_size")
    if has != wants:
        raise ModelError(f"{name}: width of the image: {has}, but the transformer is made for {wants}")


def _load_eyes(found: FoundModel, how: Loaded) -> ClipEncoder:
    path, dtype = found.path_of("image_encoder"), how.computes_in
    with quiet():
        clip = CLIPVisionModel.from_pretrained(path, dtype=dtype, use_safetensors=True)
    return ClipEncoder(how.to_read(clip), CLIPImageProcessorPil.from_pretrained(found.path_of("image_processor")))


def _transformer_skeleton(folder: Path, settings: BackboneSettings) -> WanTransformer3DModel:
    """The transformer without its weights, which fit; its history weights are those it has or would begin with."""
    if folder.is_file():
        config = config_for(open_tensors(folder), "WanTransformer3DModel")
        network = skeleton(folder, lambda: WanTransformer3DModel.from_config(config))
        network.history_patch_embed = Patchify(known_frames(network), kernels_of(settings.schedules))
        return network
    config = config_in(folder, "WanTransformer3DModel")
    found = read_shapes(weight_files(folder, "diffusion_pytorch_model"))
    network = skeleton(folder, lambda: WanTransformer3DModel.from_config(config))
    check_fit(folder, {k: s for k, s in found.items() if not k.startswith(HISTORY)}, shapes_of(network))
    history = {name: shape for name, shape in found.items() if name.startswith(HISTORY)}
    trained = trained_kernels(name.removeprefix(HISTORY) for name in history)
    patchify = Patchify(known_frames(network), {*kernels_of(settings.schedules), *trained})
    if history:
        check_fit(folder, history, {HISTORY + name: shape for name, shape in shapes_of(patchify).items()})
    network.history_patch_embed = patchify
    return network


def _wan_skeleton(found: FoundModel, part: str) -> WanTransformer3DModel:
    return _transformer_skeleton(found.path_of(part), settings_of(found))


_OUTLINES = {"wan": _wan_outline, "hunyuan": hunyuan_outline, "helios": helios_outline}
_LOADERS = {"wan": _load_wan, "hunyuan": load_hunyuan, "helios": load_helios}
_SKELETONS: Mapping[str, Callable[[FoundModel, str], nn.Module]] = {
    "wan": _wan_skeleton,
    "hunyuan": lambda found, _: hunyuan_skeleton(found),
    "helios": lambda found, _: helios_skeleton(found),
}
_NETWORK: Mapping[Network | None, str] = {None: "transformer"}
_NETWORKS: Mapping[Network | None, str] = {"high": "transformer", "low": "transformer_2"}
