"""Which parts of a model are on this machine, and which files exactly they are.

A part is looked for where it is said to be (a folder, a file), else in the package, else in the hub's cache, which is
that of huggingface_hub: HF_HOME and HF_HUB_CACHE are honored. Nothing here goes to the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from longtake.backbones.catalog import ModelRow, Part
from longtake.backbones.weights import PICKLES, weight_files
from longtake.errors import ModelError

__all__ = [
    "FoundModel",
    "FoundPart",
    "Manifest",
    "ManifestFile",
    "ManifestPart",
    "files_beside",
    "find_parts",
    "manifest_of",
    "stem_of",
]

SAMPLES = 64  # of a file enter its digest where the hub gives none
SAMPLE = 1 << 16  # bytes
_MARKS = {  # else config.json
    "tokenizer": "tokenizer_config.json",
    "processor": "preprocessor_config.json",
    "scheduler": "scheduler_config.json",
}
_DIFFUSERS = ("Transformer3DModel", "AutoencoderKL")


@dataclass(frozen=True, slots=True)
class FoundPart:
    """A part, and what is here of it."""

    part: Part
    path: Path | None  # its folder, or the single file that holds its weights
    files: tuple[Path, ...]
    missing: str  # what is, and what would do; empty where the part is whole
    commit: str = ""  # of the snapshot in the hub's cache

    @property
    def bytes(self) -> int:
        """What is here of it."""
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model, and what is here of it."""

    row: ModelRow
    parts: tuple[FoundPart, ...]
    folder: Path | None = None  # that is the model: what lies in it beside the parts belongs to the model, too
    remark: str = ""  # which model known by name it was taken for

    @property
    def absent(self) -> tuple[FoundPart, ...]:
        """The parts that are not whole."""
        return tuple(found for found in self.parts if found.missing)

    @property
    def download_bytes(self) -> int:
        """What fetching the rest would take, about."""
        return sum(max(0, found.part.bytes - found.bytes) for found in self.absent)

    def path_of(self, name: str) -> Path:
        """The folder or the file of a part.

        Raises:
            ModelError: it is not here; the message says what is missing.
        """
        (found,) = [found for found in self.parts if found.part.name == name]
        if found.missing or found.path is None:
            raise ModelError(f"{self.row.name}: its {found.part.name}: {found.missing}")
        return found.path


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file that is used."""

    name: str  # within its part
    bytes: int
    digest: str  # the hub's own, or that of samples from the whole length of the file


@dataclass(frozen=True, slots=True)
class ManifestPart:
    """A part that is used, with where it is from."""

    name: str
    source: str  # repository@commit, or the path that was given
    files: tuple[ManifestFile, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What exactly a video is made with."""

    model: str
    parts: tuple[ManifestPart, ...]

    def unplaced(self, model: str) -> Manifest:
        """The same of a model of another name, without folders of this machine."""
        here = {part: Path(part.source) for part in self.parts if Path(part.source).exists()}
        return Manifest(model, tuple(replace(p, source=here[p].name) if p in here else p for p in self.parts))


def find_parts(row: ModelRow, home: Path | None = None, places: Mapping[str, Path] | None = None) -> FoundModel:
    """What is here of a model.

    Args:
        row: the model.
        home: the hub's cache; that of huggingface_hub if nothing is said.
        places: where parts are that are not in the cache: by the name of a part, its folder, or of a transformer a
            single safetensors or GGUF file; by the name of a repository, a folder that holds its parts as the
            repository does.

    Raises:
        ModelError: a place names no part, does not exist or holds nothing that can be used.
    """
    places = places or {}
    known = {part.name for part in row.parts} | set(row.repos)
    for name in places:
        if name not in known:
            raise ModelError(f"{row.name} has no part {name!r}; it has {', '.join(part.name for part in row.parts)}")
    parts = tuple(_find(row, part, home, places) for part in row.parts)
    own = (one for one in parts if one.part.repo == row.parts[0].repo and one.part.name not in places)
    folders = (one.path.parent if one.part.folder else one.path for one in own if one.path)
    return FoundModel(row, parts, next(folders, None))


def stem_of(part: Part) -> str:
    """What the weight files of a part are called; empty for tokenizers, processors and schedulers."""
    if part.kind in _MARKS:
        return ""
    return "diffusion_pytorch_model" if any(mark in part.kind for mark in _DIFFUSERS) else "model"


def files_beside(found: FoundModel) -> tuple[Path, ...]:
    """What lies in the model's folder and is longtake's own."""
    home = found.folder
    named = () if home is None else (home / "codebooks.safetensors", home / "longtake.json")
    return tuple(path for path in named if path.is_file())


def manifest_of(found: FoundModel, loras: Iterable[Path] = ()) -> Manifest:
    """The files of a model, with sizes and digests; the settings beside it and LoRAs are parts, too.

    Raises:
        ModelError: a part is not whole.
    """
    parts = [_entry(found, one) for one in found.parts]
    beside = files_beside(found)
    if beside:
        source = parts[0].source if found.parts[0].commit else str(found.folder)
        parts.append(ManifestPart("settings", source, tuple(map(_noted, beside))))
    parts += [ManifestPart("lora", str(path), (_noted(path),)) for path in loras]
    return Manifest(found.row.name, tuple(parts))


def _entry(found: FoundModel, one: FoundPart) -> ManifestPart:
    path = found.path_of(one.part.name)
    source = f"{one.part.repo}@{one.commit}" if one.commit else str(path)
    return ManifestPart(one.part.name, source, tuple(map(_noted, one.files)))


def _noted(path: Path) -> ManifestFile:
    return ManifestFile(path.name, path.stat().st_size, _digest(path))


def _find(row: ModelRow, part: Part, home: Path | None, places: Mapping[str, Path]) -> FoundPart:
    if part.name in places:
        return _placed(part, places[part.name].expanduser())
    if part.repo in places:
        return _in_folder(part, places[part.repo].expanduser() / part.folder)
    if row.assets:
        return _in_folder(part, Path(str(files("longtake"))) / "assets" / row.assets / part.folder)
    mark = f"{part.folder}{part.folder and '/'}{_mark(part)}"
    cached = try_to_load_from_cache(part.repo, mark, cache_dir=home)
    if not isinstance(cached, str):
        return FoundPart(part, None, (), f"{part.repo}{part.folder and '/'}{part.folder} is not in the hub's cache")
    folder = Path(cached).parent
    depth = len(Path(part.folder).parts)
    return _in_folder(part, folder, commit=(folder, *folder.parents)[depth].name)


def _placed(part: Part, path: Path) -> FoundPart:
    """A part whose place was named."""
    if path.is_dir():
        return _in_folder(part, path)
    if not path.is_file():
        raise ModelError(f"{path}, where {part.name} was said to be, does not exist")
    if path.suffix in PICKLES:
        raise ModelError(f"{path}: a pickle can run any program and is not loaded; convert it to safetensors")
    single = "Transformer3DModel" in part.kind  # codecs and encoders are small, and published as folders
    if path.suffix not in (".safetensors", ".gguf") or not single:
        what = "a folder, a .safetensors or a .gguf file" if single else "a folder of diffusers layout"
        raise ModelError(f"{path} cannot be {part.name}: expected {what}")
    return FoundPart(part, path, (path,), "")


def _in_folder(part: Part, folder: Path, commit: str = "") -> FoundPart:
    """What is in a folder of diffusers layout."""
    told = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".txt", ".model") and path.is_file())
    if not (folder / _mark(part)).is_file():
        return FoundPart(part, folder, (), f"{folder / _mark(part)} is missing", commit)
    if not stem_of(part):
        return FoundPart(part, folder, tuple(told), "", commit)
    configs = [path for path in told if path.name in ("config.json", f"{stem_of(part)}.safetensors.index.json")]
    try:
        weights = weight_files(folder, stem_of(part))
    except ModelError as error:
        here = sorted(path for path in folder.glob(f"{stem_of(part)}*.safetensors") if path.is_file())
        return FoundPart(part, folder, (*configs, *here), str(error), commit)
    return FoundPart(part, folder, (*configs, *weights), "", commit)


def _mark(part: Part) -> str:
    return _MARKS.get(part.kind, "config.json")


def _digest(path: Path) -> str:
    """The hub's digest, which a file of its cache is named by; else that of samples of a file's whole length."""
    if path.is_symlink() and path.readlink().parent.name == "blobs":
        return path.readlink().name
    size, digest = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        for at in range(0, size, max(SAMPLE, size // SAMPLES)):
            file.seek(at)
            digest.update(file.read(SAMPLE))
    return f"samples:{digest.hexdigest()[:32]}"
