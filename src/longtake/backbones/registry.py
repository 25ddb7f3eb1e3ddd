"""Models by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from longtake.errors import ModelError

__all__ = ["MODELS", "find_model"]

MODELS = {"embedded": "embedded"}  # name -> folder in the package's assets
_PICKLES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model, given by name or by path.

    Raises:
        ModelError: there is no such model, or the path is a file.
    """
    if str(name_or_path) in MODELS:
        folder = Path(str(files("longtake"))) / "assets" / MODELS[str(name_or_path)]
        if not folder.is_dir():
            raise ModelError(f"the model {str(name_or_path)!r} is not part of this installation: {folder} is missing")
        return folder
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix in _PICKLES:
            raise ModelError(f"{path}: a pickle can run any program and is not loaded; convert it to safetensors")
        raise ModelError(f"{path} is a file; give the model's folder, the one that holds model_index.json")
    raise ModelError(
        f"unknown model {str(name_or_path)!r}: no such folder, and the models known by name are {', '.join(MODELS)}"
    )
