"""Models by name, by the repository they are in, or by the folder that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from longtake.backbones.catalog import MODELS, ModelRow
from longtake.backbones.outline import SETTINGS
from longtake.backbones.parts import FoundModel, find_parts
from longtake.backbones.published import recognize
from longtake.backbones.settings import BackboneSettings
from longtake.backbones.weights import PICKLES, read_json
from longtake.errors import ModelError

__all__ = ["find_model", "find_row", "locate", "present", "said_bytes"]

# The models that a pipeline's folder can be of; their parts, by the number of transformers, are those of its folder.
_PIPELINES = {
    "WanPipeline": ("wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "wan2.2-ti2v-5b", "wan2.2-a14b"),
    "WanImageToVideoPipeline": ("wan2.1-i2v-14b", "wan2.2-a14b"),
    "HunyuanVideoFramepackPipeline": ("framepack-i2v",),
    "HunyuanVideoPipeline": ("hunyuanvideo",),
    "HeliosPipeline": ("helios-base",),
    "HeliosPyramidPipeline": ("helios-mid",),
}
_TRANSFORMERS = {  # alone in a folder, as FramePack is published
    "HunyuanVideoFramepackTransformer3DModel": "framepack-i2v",
    "HunyuanVideoTransformer3DModelPacked": "framepack-i2v",
}


def find_row(name: str) -> ModelRow:
    """The row of a model that is known by name.

    Raises:
        ModelError: there is no such model.
    """
    if name not in MODELS:
        raise ModelError(f"unknown model {name!r}; the models known by name are {', '.join(MODELS)}")
    return MODELS[name]


def locate(name_or_path: str | Path, places: Mapping[str, Path] | None = None) -> FoundModel:
    """The parts of a model: of a name, of a repository on the hub that is here, or of a folder.

    Args:
        name_or_path: the model.
        places: parts that are elsewhere, as `find_parts` takes them.

    Raises:
        ModelError: there is no such model, or its folder holds nothing that longtake knows.
    """
    name, places = str(name_or_path), places or {}
    if name in MODELS:
        return find_parts(MODELS[name], places=places)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _located(name, path, places)
    if path.is_file():
        if path.suffix in PICKLES:
            raise ModelError(f"{path}: a pickle can run any program and is not loaded; convert it to safetensors")
        raise ModelError(
            f"{path} is a file; give the model's folder, the one that holds model_index.json, or name the model that "
            f"the file is a part of and its place: --model framepack-i2v --part transformer={path}"
        )
    known = next((row for row in MODELS.values() if row.parts[0].repo == name), None)
    if known is not None:
        return find_parts(known, places=places)
    for mark in ("model_index.json", "config.json"):
        cached = try_to_load_from_cache(name, mark) if name.count("/") == 1 else None
        if isinstance(cached, str):
            return _located(name, Path(cached).parent, places)
    raise ModelError(f"unknown model {name!r}: no such folder, and the models known by name are {', '.join(MODELS)}")


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model, given by name or by path.

    A model from the hub has one if all of its parts are of one repository, and here.

    Raises:
        ModelError: there is no such model, it is not here, it is not one folder, or the path is a file.
    """
    path = Path(name_or_path).expanduser()
    if str(name_or_path) not in MODELS and path.is_dir():
        return path
    row = locate(name_or_path).row
    if row.assets:
        folder = Path(str(files("longtake"))) / "assets" / row.assets
        if not folder.is_dir():
            raise ModelError(f"the model {row.name!r} is not part of this installation: {folder} is missing")
        return folder
    found = present(locate(name_or_path))
    if len(row.repos) > 1:
        raise ModelError(f"{row.name} is made of parts of {', '.join(row.repos)}, which are not one folder")
    return found.path_of(row.parts[0].name).parent


def present(found: FoundModel) -> FoundModel:
    """The same model, all of whose parts are here.

    Raises:
        ModelError: one is not; the message says how to get it.
    """
    row = found.row
    if found.absent and row.assets:
        raise ModelError(f"the model {row.name!r} is not part of this installation: {found.absent[0].missing}")
    if found.absent and row.name in MODELS:
        raise ModelError(
            f"{row.name} is not here: {found.absent[0].missing}.\n"
            f"  to fetch it, about {said_bytes(found.download_bytes)}: longtake models {row.name} --fetch"
        )
    if found.absent:
        raise ModelError(f"{row.name}: its {found.absent[0].part.name}: {found.absent[0].missing}")
    return found


def said_bytes(count: int) -> str:
    """A size as people say it, in powers of ten as the hub's pages do.

    >>> said_bytes(25_748_629_632), said_bytes(47_230_392), said_bytes(9_170)
    ('25.7 GB', '47 MB', '9 kB')
    """
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _located(name: str, folder: Path, places: Mapping[str, Path]) -> FoundModel:
    """The parts of a model in a folder: a pipeline's, or a transformer alone and the rest from the hub's cache."""
    config = folder / "config.json"
    if not (folder / "model_index.json").is_file() and config.is_file():
        kind = str(read_json(config).get("_class_name"))
        if kind in _TRANSFORMERS:
            row = MODELS[_TRANSFORMERS[kind]]
            remark = f"taken for {row.name}; framepack-f1 would be: --model framepack-f1 --part transformer={folder}"
            return replace(find_parts(row, places={"transformer": folder, **places}), folder=folder, remark=remark)
    index = read_json(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in _PIPELINES:
        raise ModelError(f"{folder}: model_index.json says {kind}; longtake knows {', '.join(_PIPELINES)}")
    rows = [MODELS[known] for known in (("helios-distilled",) if index.get("is_distilled") else _PIPELINES[kind])]
    second = (index.get("transformer_2") or [None])[0] is not None
    row = next((row for row in rows if bool(row.settings.boundary) == second), rows[0])
    parts = [replace(part, repo=str(folder), folder=part.name) for part in row.parts]
    absent = [part.name for part in parts if part.name not in places and not (folder / part.name).is_dir()]
    if absent:
        raise ModelError(f"{folder}: the model lacks {', '.join(absent)}/")
    row = replace(row, name=name, parts=tuple(parts), buckets=())
    found = replace(find_parts(row, places={str(folder): folder, **places}), folder=folder)
    return found if (folder / SETTINGS).is_file() else _recognized(found, folder, rows, index)


def _recognized(found: FoundModel, folder: Path, rows: Sequence[ModelRow], index: Mapping[str, Any]) -> FoundModel:
    """A model that says nothing of itself to longtake, with the settings of the one that has its networks.

    Where none has them, a Wan has the default ones and what its scheduler tells. It is not asked otherwise: it has one
    shift for all sizes.
    """
    known = recognize(found, rows)
    settings = known.settings if known else found.row.settings
    if known is None and found.row.family == "wan":
        settings = BackboneSettings() if not settings.boundary else settings
        settings = settings.model_copy(update=_scheduled(folder / "scheduler" / "scheduler_config.json"))
    if settings.boundary:
        settings = settings.model_copy(update={"boundary": index.get("boundary_ratio") or settings.boundary})
    row = replace(found.row, settings=settings, buckets=known.buckets if known else ())
    remark = f"its networks are those of {known.name}, and it is used as that is" if known else ""
    return replace(found, row=row, remark=remark)


def _scheduled(path: Path) -> dict[str, float]:
    """What the config of a scheduler tells; nothing where there is none.

    Raises:
        ModelError: it is of a model that predicts something else than a flow.
    """
    if not path.is_file():
        return {}
    config = read_json(path)
    predicts = config.get("prediction_type", "flow_prediction")
    if predicts != "flow_prediction":
        raise ModelError(f"{path}: prediction_type {predicts!r}: longtake knows 'flow_prediction'")
    shift = config.get("flow_shift", config.get("shift"))
    if shift is None or config.get("use_dynamic_shifting"):
        return {}
    if not isinstance(shift, int | float) or shift <= 0:
        raise ModelError(f"{path}: a shift of {shift!r}: expected a number above 0")
    return {"shift": float(shift)}
