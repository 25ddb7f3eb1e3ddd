"""The configs of the published networks, and which of these models has the networks of a folder.

They are as the conversion scripts of diffusers write them; their parameters are those of the catalog, to the last one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import diffusers

from longtake.backbones.catalog import ModelRow, Part
from longtake.backbones.parts import FoundModel, FoundPart
from longtake.backbones.single_file import config_for, open_tensors
from longtake.backbones.weights import read_json

__all__ = ["published_config", "recognize"]

_FRAMEPACK = {"has_clean_x_embedder": True, "has_image_proj": True, "image_proj_dim": 1152}
_TRANSFORMERS: dict[str, Mapping[str, Any]] = {  # what is not as in the class itself
    "framepack-i2v": _FRAMEPACK,
    "framepack-f1": _FRAMEPACK,
    "wan2.1-t2v-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-i2v-14b": {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120},
    "wan2.2-ti2v-5b": {
        "num_attention_heads": 24,
        "ffn_dim": 14336,
        "num_layers": 30,
        "in_channels": 48,
        "out_channels": 48,
    },
}
_CODECS: dict[str, Mapping[str, Any]] = {
    "wan2.2-ti2v-5b": {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    },
}
_SIZES = {  # that tell networks of one class from each other
    "transformer": (
        "num_attention_heads",
        "attention_head_dim",
        "num_layers",
        "num_single_layers",
        "ffn_dim",
        "in_channels",
        "out_channels",
        "text_dim",
        "image_dim",
        "pos_embed_seq_len",
    ),
    "vae": ("base_dim", "z_dim", "latent_channels"),
}


def published_config(row: ModelRow, part: Part) -> dict[str, Any]:
    """What is not as in the class itself in the config of a published transformer or autoencoder."""
    return dict((_CODECS if part.name == "vae" else _TRANSFORMERS).get(row.name, {}))


def recognize(found: FoundModel, rows: Iterable[ModelRow]) -> ModelRow | None:
    """The first of these rows that has as many transformers as a model, and networks of the same sizes."""
    own = {one.part.name: _sizes(one.part, _config_of(one)) for one in found.parts if _is_measured(one.part)}
    for row in rows:
        if own == {part.name: _sizes(part, _whole(row, part)) for part in row.parts if _is_measured(part)}:
            return row
    return None


def _config_of(one: FoundPart) -> Mapping[str, Any]:
    """The config of a network in its folder or its single file; empty if it is not here."""
    if one.path is None:
        return {}
    if one.path.is_file():
        return config_for(open_tensors(one.path), one.part.kind)
    path = one.path / "config.json"
    return read_json(path) if path.is_file() else {}


def _whole(row: ModelRow, part: Part) -> Mapping[str, Any]:
    """The published config, with what is as in the class."""
    usual = inspect.signature(getattr(diffusers, part.kind).__init__).parameters
    return {name: parameter.default for name, parameter in usual.items()} | published_config(row, part)


def _is_measured(part: Part) -> bool:
    return part.name.partition("_")[0] in _SIZES


def _sizes(part: Part, config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: config.get(name) for name in _SIZES[part.name.partition("_")[0]]}
