"""A model becomes a backbone: plain diffusers layout, safetensors, in one folder or in the parts of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from longtake.backbones.adapting import adapt
from longtake.backbones.backbone import AnyCodec, Backbone, kernels_of
from longtake.backbones.codebooks import codebook_sizes, load_codebooks
from longtake.backbones.codec import Codec
from longtake.backbones.hunyuan.loading import hunyuan_outline, load_hunyuan, load_hunyuan_codec
from longtake.backbones.outline import Loaded, Outline, load_settings, settings_of
from longtake.backbones.parts import FoundModel
from longtake.backbones.prompts import LentPromptEncoder, PromptEncoder
from longtake.backbones.registry import locate, present
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.single_file import config_for, load_transformer_file, open_tensors
from longtake.backbones.skeletons import placed, quiet, shapes_of, skeleton
from longtake.backbones.weights import HISTORY, check_fit, read_json, read_shapes, read_tensors, weight_files
from longtake.errors import ModelError
from longtake.packing import Patchify, trained_kernels
from longtake.schedule import Kernel

__all__ = [
    "Loaded",
    "Outline",
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
    beside = found.path_of("transformer").parent.glob("*")  # settings and codebooks
    files = sorted({path for part in found.parts for path in part.files} | {path for path in beside if path.is_file()})
    stats = [(path, path.stat()) for path in files]
    stamps = tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return _inspected(str(name_or_path), tuple(places.items()), stamps)


@lru_cache(maxsize=8)
def _inspected(name: str, places: tuple[tuple[str, Path], ...], stamps: tuple[tuple[Path, int, int], ...]) -> Outline:
    """The outline of a model as long as its files stay as they are: a server asks for it with every request."""
    found = locate(name, dict(places))
    return _of(_OUTLINES, found)(present(found))


def load_backbone(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    how: Loaded | None = None,
) -> Backbone:
    """The model of that name, or in that folder.

    A checkpoint without `longtake.json` gets the settings that its name stands for, or the default ones, and history
    weights begun from its own patch embedding where it has none. `how` says more than `device` and `dtype` do.

    Raises:
        ModelError: the model is unknown, incomplete, unsafe, of another architecture, or does not fit its configs; or a
            LoRA does not fit the model.
    """
    how = how or Loaded(device, dtype)
    found = locate(name_or_path, how.places)
    return replace(_of(_LOADERS, found)(present(found), how), name=str(name_or_path))


def _transformer(path: Path, settings: BackboneSettings, how: Loaded, kind: str) -> WanTransformer3DModel:
    """A Wan transformer from its folder or from a single file."""
    if path.is_dir():
        return load_transformer(path, settings, how.home, how.computes_in)
    return cast(WanTransformer3DModel, placed(load_transformer_file(path, kind, how.computes_in), how.home))


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
    codec = _codec_skeleton(found.path_of("vae"))
    prompts = _prompts_skeleton(found)
    transformer = _transformer_skeleton(found.path_of("transformer"), settings)
    _check_widths(found.row.name, codec.config["z_dim"], prompts.config.d_model, transformer.config)
    return Outline(
        settings=settings,
        temporal_ratio=codec.config["scale_factor_temporal"],
        spatial_ratio=codec.config["scale_factor_spatial"],
        channels=codec.config["z_dim"],
        patch=Kernel(*transformer.config["patch_size"]),
        kernels=tuple(sorted(trained_kernels(transformer.history_patch_embed.state_dict()), key=lambda k: k.t)),
        codebooks=codebook_sizes(found.path_of("transformer").parent),
        family="wan",
        buckets=found.row.buckets,
    )


def _load_wan(found: FoundModel, how: Loaded) -> Backbone:
    settings, device, dtype = settings_of(found), torch.device(how.device), how.computes_in
    _prompts_skeleton(found)
    codec = load_codec(found.path_of("vae"), device, dtype)

    def prompts() -> PromptEncoder:
        return _load_prompts(found, settings.text_length, how.reads_on, dtype)

    reader = LentPromptEncoder(prompts) if how.rest else prompts()
    folder = found.path_of("transformer")
    transformer = _transformer(folder, settings, how, found.row.parts[0].kind)
    width = read_json(found.path_of("text_encoder") / "config.json").get("d_model")
    _check_widths(found.row.name, codec.channels, width, transformer.config)
    reports = adapt(transformer, how)
    codebooks = load_codebooks(folder.parent, codec, device)
    backbone = Backbone.assemble(found.row.name, transformer, codec, reader, settings, codebooks)
    if settings.boundary:
        details = _transformer(found.path_of("transformer_2"), settings, how, found.row.parts[0].kind)
        adapt(details, how)
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
    patchify = Patchify(transformer.patch_embedding, trained_kernels(outline.history_patch_embed.state_dict()))
    if trained:
        patchify.load_state_dict(trained)
    transformer.history_patch_embed = patchify
    return placed(transformer, device)


def load_codec(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Codec:
    """The codec in a folder, the `vae` of a model."""
    _codec_skeleton(folder)
    with quiet():
        network = AutoencoderKLWan.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    return Codec(placed(network, device))


def _load_prompts(found: FoundModel, text_length: int, device: torch.device, dtype: torch.dtype) -> PromptEncoder:
    with quiet():
        encoder = UMT5EncoderModel.from_pretrained(found.path_of("text_encoder"), dtype=dtype, use_safetensors=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(found.path_of("tokenizer"))
    return PromptEncoder(placed(encoder, device), tokenizer, text_length)


def _check_widths(name: str, channels: int, text: int | None, transformer: Mapping[str, Any]) -> None:
    for what, has, wants in (
        ("channels of a latent", channels, transformer["in_channels"]),
        ("channels of the prediction", channels, transformer["out_channels"]),
        ("width of the text", text, transformer["text_dim"]),
    ):
        if has != wants:
            raise ModelError(f"{name}: {what}: {has}, but the transformer is made for {wants}")


def _transformer_skeleton(folder: Path, settings: BackboneSettings) -> WanTransformer3DModel:
    """The transformer without its weights, which fit; its history weights are those it has or would begin with."""
    if folder.is_file():
        config = config_for(open_tensors(folder), "WanTransformer3DModel")
        network = skeleton(folder, lambda: WanTransformer3DModel.from_config(config))
        network.history_patch_embed = Patchify(network.patch_embedding, kernels_of(settings.schedules))
        return network
    config = _config(folder, "WanTransformer3DModel")
    found = read_shapes(weight_files(folder, "diffusion_pytorch_model"))
    network = skeleton(folder, lambda: WanTransformer3DModel.from_config(config))
    check_fit(folder, {k: s for k, s in found.items() if not k.startswith(HISTORY)}, shapes_of(network))
    history = {name: shape for name, shape in found.items() if name.startswith(HISTORY)}
    trained = trained_kernels(name.removeprefix(HISTORY) for name in history)
    patchify = Patchify(network.patch_embedding, {*kernels_of(settings.schedules), *trained})
    if history:
        check_fit(folder, history, {HISTORY + name: shape for name, shape in shapes_of(patchify).items()})
    network.history_patch_embed = patchify
    return network


def _codec_skeleton(folder: Path) -> AutoencoderKLWan:
    """The codec without its weights, which fit."""
    config = _config(folder, "AutoencoderKLWan")
    network = skeleton(folder, lambda: AutoencoderKLWan.from_config(config))
    check_fit(folder, read_shapes(weight_files(folder, "diffusion_pytorch_model")), shapes_of(network))
    return network


def _prompts_skeleton(found: FoundModel) -> UMT5EncoderModel:
    """The text encoder without its weights, which fit; the tokenizer is there too."""
    part, tokenizer = found.path_of("text_encoder"), found.path_of("tokenizer") / "tokenizer.json"
    config = read_json(part / "config.json")
    if config.get("model_type") != "umt5":
        raise ModelError(f"{part}: config.json says {config.get('model_type')}; a Wan model reads text with umt5")
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


def _config(folder: Path, class_name: str) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if config.get("_class_name") != class_name:
        raise ModelError(f"{folder}: config.json says {config.get('_class_name')}; longtake knows {class_name}")
    return config


Row = TypeVar("Row")


def _of(table: Mapping[str, Row], found: FoundModel) -> Row:
    if found.row.family not in table:
        raise ModelError(
            f"{found.row.name}: its network and samplers are in the library (longtake.backbones.helios), but videos "
            f"are not made with it yet; framepack-i2v and framepack-f1 pack their history in the same way"
        )
    return table[found.row.family]


_OUTLINES = {"wan": _wan_outline, "hunyuan": hunyuan_outline}
_LOADERS = {"wan": _load_wan, "hunyuan": load_hunyuan}
