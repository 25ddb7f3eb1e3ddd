"""A model's codebooks on disk: one file beside its networks, bound to the codec whose latents the words are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from longtake.backbones.codec import Codec
from longtake.backbones.weights import read_note, read_shapes, read_tensors
from longtake.errors import ModelError, OutputError
from longtake.packing import Codebook

__all__ = ["CODEBOOKS", "check_sizes", "codebook_sizes", "load_codebooks", "save_codebooks"]

CODEBOOKS = "codebooks.safetensors"


def codebook_sizes(folder: Path | None) -> tuple[int, ...]:
    """How many words each of the codebooks in a model's folder has, rising."""
    if folder is None or not (path := folder / CODEBOOKS).is_file():
        return ()
    return tuple(sorted(shape[0] for shape in read_shapes([path]).values()))


def check_sizes(model: str, sizes: Mapping[str, int], there: Sequence[int]) -> None:
    """Checks that a model has codebooks of these sizes, by kernel.

    Raises:
        ModelError: it lacks one; the message names those that it has.
    """
    for size in sizes.values():
        if size not in there:
            has = f"it has codebooks of {', '.join(map(str, there))}" if there else "it was not trained with +D"
            raise ModelError(f"{model}: the model has no codebook of {size} words; {has}")


def load_codebooks(folder: Path | None, codec: Codec, device: torch.device | str = "cpu") -> dict[int, Codebook]:
    """The codebooks in a model's folder by their size; none where there are none, or no folder.

    Raises:
        ModelError: they were made of another codec's latents.
    """
    if folder is None or not (path := folder / CODEBOOKS).is_file():
        return {}
    if read_note(path).get("codec") != codec.fingerprint:
        raise ModelError(
            f"{path}: these codebooks belong to another codec, whose latents mean something else; "
            "make new ones by training on history with +D, or delete the file"
        )
    words = read_tensors([path], "words.").values()
    return {len(w): Codebook(w.to(device)) for w in sorted(words, key=len)}


def save_codebooks(folder: Path, codebooks: Mapping[int, Codebook], codec: Codec) -> None:
    """Writes codebooks into a model folder; nothing if there are none.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    if not codebooks:
        return
    tensors = {f"words.{size}": book.words.float().cpu().contiguous() for size, book in codebooks.items()}
    try:
        (folder / CODEBOOKS).write_bytes(save(tensors, metadata={"codec": codec.fingerprint}))
    except OSError as error:
        raise OutputError(f"{folder}: the codebooks could not be written ({error})") from error
