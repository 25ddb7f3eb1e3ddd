"""Whether the parts of a model are what they are said to be, before anything of them is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import transformers

from longtake.backbones.parts import FoundModel, FoundPart, stem_of
from longtake.backbones.single_file import check_transformer_file, open_tensors
from longtake.backbones.single_file.sizes import ALIASES
from longtake.backbones.skeletons import skeleton
from longtake.backbones.weights import HISTORY, check_fit, read_json, read_shapes
from longtake.errors import ModelError

__all__ = ["check_model", "check_part"]


def check_model(found: FoundModel) -> None:
    """Checks every part: that it is whole, of the right class, readable, and fits its config.

    Only configs and the headers of weight files are read.

    Raises:
        ModelError: the first thing that is wrong, where, and what would do.
    """
    for one in found.parts:
        check_part(one, found.path_of(one.part.name))


def check_part(one: FoundPart, path: Path) -> None:
    """Checks one part, in its folder or its single file.

    Raises:
        ModelError: what is wrong, where, and what would do.
    """
    if path.is_dir():
        _check_folder(one, path)
    else:
        _check_file(one, path)


def _check_folder(one: FoundPart, folder: Path) -> None:
    if not stem_of(one.part):
        for path in one.files:
            if path.suffix == ".json":
                read_json(path)
        return
    kind, config = one.part.kind, read_json(folder / "config.json")
    shapes = read_shapes([path for path in one.files if path.suffix == ".safetensors"])
    if hasattr(diffusers, kind):
        said, accepted = config.get("_class_name"), (kind, ALIASES.get(kind, kind))
        if said not in accepted:
            raise ModelError(f"{folder}: config.json says {said}; {one.part.name} is read by {kind}")
        network = skeleton(folder, lambda: getattr(diffusers, kind).from_config(config))
        own = {name: shape for name, shape in shapes.items() if not name.startswith(HISTORY)}
        check_fit(folder, own, {name: tensor.shape for name, tensor in network.state_dict().items()})
        return
    read = getattr(transformers, kind)
    said, wanted = config.get("model_type"), read.config_class.model_type
    if said != wanted:
        raise ModelError(f"{folder}: config.json says {said}; {one.part.name} is a {wanted}")
    network = skeleton(folder, lambda: read(read.config_class.from_dict(config)))
    _check_sizes(folder, shapes.values(), network)


def _check_sizes(folder: Path, found: Iterable[tuple[int, ...]], network: Any) -> None:
    """Checks that a file holds a tensor of each shape that a network of transformers has.

    By shape and not by name: transformers renames tensors between versions, and knows the old names when it loads.
    """
    wanted = Counter(tuple(parameter.shape) for parameter in network.parameters())
    lacking = wanted - Counter(found)
    if lacking:
        shape, count = lacking.most_common(1)[0]
        raise ModelError(
            f"{folder}: the weights lack {lacking.total()} tensors that config.json asks for, {count} of them {shape}"
        )


def _check_file(one: FoundPart, path: Path) -> None:
    """Checks a single file, a transformer's against the network that it has to fill."""
    if "Transformer3DModel" in one.part.kind:
        check_transformer_file(path, one.part.kind)
    else:
        open_tensors(path)
