"""Models by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from longtake.backbones.catalog import MODELS, ModelRow
from longtake.backbones.parts import find_parts
from longtake.backbones.weights import PICKLES
from longtake.errors import ModelError

__all__ = ["find_model", "find_row", "said_bytes"]


def find_row(name: str) -> ModelRow:
    """The row of a model that is known by name.

    Raises:
        ModelError: there is no such model.
    """
    if name not in MODELS:
        raise ModelError(f"unknown model {name!r}; the models known by name are {', '.join(MODELS)}")
    return MODELS[name]


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model, given by name or by path.

    A model from the hub has one if all of its parts are of one repository, and here.

    Raises:
        ModelError: there is no such model, it is not here, it is not one folder, or the path is a file.
    """
    if str(name_or_path) in MODELS:
        return _folder_of(MODELS[str(name_or_path)])
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix in PICKLES:
            raise ModelError(f"{path}: a pickle can run any program and is not loaded; convert it to safetensors")
        raise ModelError(f"{path} is a file; give the model's folder, the one that holds model_index.json")
    raise ModelError(
        f"unknown model {str(name_or_path)!r}: no such folder, and the models known by name are {', '.join(MODELS)}"
    )


def said_bytes(count: int) -> str:
    """A size as people say it, in powers of ten as the hub's pages do.

    >>> said_bytes(25_748_629_632), said_bytes(47_230_392)
    ('25.7 GB', '47 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _folder_of(row: ModelRow) -> Path:
    if row.assets:
        folder = Path(str(files("longtake"))) / "assets" / row.assets
        if not folder.is_dir():
            raise ModelError(f"the model {row.name!r} is not part of this installation: {folder} is missing")
        return folder
    found = find_parts(row)
    if found.absent:
        raise ModelError(
            f"{row.name} is not here: {found.absent[0].missing}.\n"
            f"  to fetch {said_bytes(found.download_bytes)}, about: longtake models {row.name} --fetch"
        )
    if len(row.repos) > 1:
        raise ModelError(f"{row.name} is made of parts of {', '.join(row.repos)}, which are not one folder")
    return found.path_of(row.parts[0].name).parent
