"""The one place that downloads, when it is told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants, is_offline_mode, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from longtake.backbones.catalog import ModelRow, Part
from longtake.backbones.parts import FoundModel, find_parts, stem_of
from longtake.backbones.registry import said_bytes
from longtake.errors import ModelError, OutputError

__all__ = ["fetch", "patterns_of"]

RESERVE = 1 << 30  # bytes that stay free on the disk


def fetch(row: ModelRow, say: Callable[[str], None], home: Path | None = None) -> FoundModel:
    """Downloads the parts of a model that are not here into the hub's cache, and returns what is here then.

    What will be fetched is said first, with its size; a download that was cut goes on where it was.

    Raises:
        ModelError: the hub is not to be used (HF_HUB_OFFLINE), cannot be reached, or does not have it.
        OutputError: the disk has no room.
    """
    found = find_parts(row, home)
    if not found.absent:
        return found
    wanted = [one.part for one in found.absent]
    size = said_bytes(found.download_bytes)
    if row.assets:
        raise ModelError(f"{row.name} comes with longtake and cannot be fetched: {found.absent[0].missing}")
    if is_offline_mode():
        raise ModelError(f"{row.name}: {size} would be fetched, but HF_HUB_OFFLINE is set; unset it to fetch them")
    cache = Path(home or constants.HF_HUB_CACHE)
    free = shutil.disk_usage(_existing(cache)).free
    if free < found.download_bytes + RESERVE:
        raise OutputError(
            f"{cache}: {said_bytes(free)} are free, {size} are to be fetched; HF_HOME names another place"
        )
    for repo in dict.fromkeys(part.repo for part in wanted):
        parts = [part for part in wanted if part.repo == repo]
        say(f"fetching {', '.join(part.name for part in parts)} from {repo}, about {size} in all")
        try:
            snapshot_download(repo, allow_patterns=patterns_of(parts), cache_dir=home)
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise ModelError(f"{repo} cannot be fetched ({error})") from error
    return find_parts(row, home)


def patterns_of(parts: list[Part]) -> list[str]:
    """Which files of a repository these parts are, in the hub's patterns; never a pickle."""
    patterns = ["model_index.json"]
    for part in parts:
        prefix = f"{part.folder}/" if part.folder else ""
        endings = (".json", ".safetensors") if stem_of(part) else (".json", ".txt", ".model")
        patterns += [f"{prefix}*{ending}" for ending in endings]
    return patterns


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
