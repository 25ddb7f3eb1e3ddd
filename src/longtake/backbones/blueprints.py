"""The networks of a model without their weights: enough to count what they take, before any of it is fetched.

A config that is here is believed; what is not here has the published one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from longtake.backbones.catalog import MODELS, ModelRow, Part
from longtake.backbones.outline import settings_of
from longtake.backbones.parts import FoundPart, find_parts, stem_of
from longtake.backbones.published import published_config
from longtake.backbones.registry import find_model, locate
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.skeletons import skeleton
from longtake.backbones.weights import read_json, read_shapes, weight_files
from longtake.errors import ModelError

__all__ = ["Blueprint", "blueprint_of", "published_codec", "published_transformer"]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A model without weights: networks on the meta device, numbers for the rest."""

    name: str
    transformer: nn.Module
    codec: nn.Module
    encoders: tuple[int, ...]  # parameters of each encoder of prompts and images
    settings: BackboneSettings
    transformers: int = 1  # of this shape; a second one takes over at some noise level
    remark: str = ""  # which model known by name a folder was taken for

    @property
    def spatial_ratio(self) -> int:
        """Pixels of a latent, in each direction."""
        return int(_first(self.codec, "scale_factor_spatial", "spatial_compression_ratio"))

    @property
    def temporal_ratio(self) -> int:
        """Images of a frame, but of the first one."""
        return int(_first(self.codec, "scale_factor_temporal", "temporal_compression_ratio"))

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(_first(self.codec, "z_dim", "latent_channels"))

    @property
    def patch(self) -> int:
        """Latents of a token, in each direction."""
        side: Any = self.transformer.config["patch_size"]  # pyright: ignore[reportIndexIssue, reportArgumentType]
        return side if isinstance(side, int) else side[-1]

    @property
    def grid(self) -> int:
        """Pixels that height and width are multiples of."""
        return self.spatial_ratio * self.patch


def blueprint_of(
    model: str, dtype: torch.dtype = torch.bfloat16, places: Mapping[str, Path] | None = None
) -> Blueprint:
    """The blueprint of a model, by its name or by its folder; nothing of it has to be here if it is known by name.

    Args:
        model: one of `MODELS`, or a folder in diffusers layout.
        dtype: what its networks compute in.
        places: where parts are that are not in the hub's cache, as `find_parts` takes them.

    Raises:
        ModelError: there is no such model, or a config does not describe a network.
    """
    known = model in MODELS
    found = _of_row(MODELS[model], places or {}) if known else _of_folder(model, find_model(model))
    for network in (found.transformer, found.codec):
        nn.Module.to(network, dtype)  # not its own `to`, which warns of what the meta device makes harmless
    return found


def published_transformer(row: ModelRow) -> nn.Module:
    """The transformer of a published model, on the meta device."""
    return _built(Path(row.name), row.parts[0].kind, published_config(row, row.parts[0]))


def published_codec(row: ModelRow) -> nn.Module:
    """The autoencoder of a published model, on the meta device."""
    (part,) = [part for part in row.parts if part.name == "vae"]
    return _built(Path(row.name), part.kind, published_config(row, part))


def _of_row(row: ModelRow, places: Mapping[str, Path]) -> Blueprint:
    found = {one.part.name: one for one in find_parts(row, places=places).parts}

    def config_of(name: str) -> Path | None:
        path = found[name].path
        return path if path is not None and (path / "config.json").is_file() else None

    def parameters_of(one: FoundPart) -> int:
        if one.missing or one.path is None or not one.path.is_dir():
            return one.part.parameters
        return _parameters(one.path)

    transformer, codec = config_of("transformer"), config_of("vae")
    return Blueprint(
        name=row.name,
        transformer=_read(transformer, found["transformer"].part) if transformer else published_transformer(row),
        codec=_read(codec, found["vae"].part) if codec else published_codec(row),
        encoders=tuple(parameters_of(one) for one in found.values() if "encoder" in one.part.name),
        settings=row.settings,
        transformers=sum(part.name.startswith("transformer") for part in row.parts),
    )


def _of_folder(name: str, folder: Path) -> Blueprint:
    encoders = sorted(path for path in folder.iterdir() if path.is_dir() and "encoder" in path.name)
    transformer, codec, found = _in(folder / "transformer"), _in(folder / "vae"), locate(name)
    return Blueprint(
        name=name,
        transformer=transformer,
        codec=codec,
        encoders=tuple(map(_parameters, encoders)),
        settings=settings_of(found),
        transformers=1 + (folder / "transformer_2").is_dir(),
        remark=found.remark,
    )


def _in(folder: Path) -> nn.Module:
    kind = read_json(folder / "config.json").get("_class_name", "")
    if not hasattr(diffusers, kind):
        raise ModelError(f"{folder}: config.json says {kind or 'no class'}, which diffusers does not have")
    return _read(folder, Part(folder.name, "", "", kind))


def _read(folder: Path, part: Part) -> nn.Module:
    config = read_json(folder / "config.json")
    return _built(folder, part.kind, {name: value for name, value in config.items() if not name.startswith("_")})


def _built(folder: Path, kind: str, config: Mapping[str, Any]) -> nn.Module:
    return skeleton(folder, lambda: getattr(diffusers, kind).from_config(dict(config)))


def _parameters(folder: Path) -> int:
    shapes = read_shapes(weight_files(folder, stem_of(Part(folder.name, "", "", "encoder"))))
    return sum(math.prod(shape) for shape in shapes.values())


def _first(network: nn.Module, *names: str) -> Any:
    config: Any = network.config
    return next(config[name] for name in names if name in config)
