"""A file becomes a network: its tensors are given to a class of diffusers, matrices as they are stored.

diffusers' own single-file loader knows neither FramePack's class nor scales beside float8, and takes the original
HunyuanVideo for 3072 wide. What is done here is checked against its converters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from longtake.backbones.names import Place, places
from longtake.backbones.placement.layout import repeated_blocks
from longtake.backbones.placement.storage import Matrix, StoredLinear, put_linear
from longtake.backbones.single_file.entries import Entry, TensorFile
from longtake.backbones.single_file.sizes import config_for
from longtake.backbones.single_file.tensors import open_tensors
from longtake.backbones.skeletons import quiet, skeleton
from longtake.backbones.wan import known_frames
from longtake.backbones.weights import check_fit
from longtake.errors import ModelError
from longtake.packing import Patchify, trained_kernels

__all__ = ["check_transformer_file", "load_transformer_file"]

_HISTORY = "history_patch_embed."  # weights that a network of ours was trained with
_SUFFIXES = {"weight": "weight", "bias": "bias", "scale": "weight"}  # ComfyUI calls the weight of a norm its scale


@dataclass(frozen=True, slots=True)
class _Source:
    """Some rows of a tensor in a file."""

    entry: Entry
    start: int
    stop: int
    swapped: bool = False  # the two halves change places

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.entry.shape[1:]) if self.entry.shape else ()

    def read(self) -> Tensor | Matrix:
        found, rows = self.entry.read(), slice(self.start, self.stop)
        if isinstance(found, Matrix):
            assert found.table is None  # it is stored by rows
            scale = None if found.scale is None else self._turned(found.scale[rows])
            weight = self._turned(found.weight[rows]).contiguous()
            return Matrix(found.form, len(weight), found.columns, weight, scale)
        return self._turned(found[rows]) if found.ndim else found

    def _turned(self, tensor: Tensor) -> Tensor:
        return tensor.roll(len(tensor) // 2, 0) if self.swapped else tensor


def check_transformer_file(path: Path, kind: str) -> None:
    """Checks that a file holds the network of a class of diffusers, all of it and nothing else. Only headers are read.

    Raises:
        ModelError: it does not; the message says what is wrong and what would do.
    """
    file = open_tensors(path)
    _fitted(file, kind, config_for(file, kind))


def load_transformer_file(path: Path, kind: str, dtype: torch.dtype) -> ModelMixin:
    """The network in a file, in host memory. Matrices of its blocks stay as they are stored: float8, int8 or GGUF.

    Args:
        path: a safetensors or GGUF file, under diffusers' names, the original ones or ComfyUI's.
        kind: the class of diffusers that reads it.
        dtype: what is computed in; the class may keep some of its layers in float32.

    Raises:
        ModelError: the file is not what it is said to be; the message says what is wrong and what would do.
    """
    from accelerate import init_empty_weights  # for this alone, and late to import

    file = open_tensors(path)
    config = config_for(file, kind)
    sources, history = _fitted(file, kind, config)
    with quiet(), init_empty_weights():
        network = getattr(diffusers, kind).from_config(config)
    in_blocks = {id(module) for block in repeated_blocks(network) for module in block.modules()}
    kept, state = _full_precision(network), {}
    matrices: dict[str, Matrix] = {}
    for name, source in sources.items():
        layer, _, own = name.rpartition(".")
        module, found = network.get_submodule(layer), source.read()
        wide = torch.float32 if kept & set(name.split(".")) else dtype
        if isinstance(found, Tensor):
            state[name] = found.to(wide)
        elif id(module) in in_blocks and type(module) is nn.Linear and own == "weight":
            matrices[layer] = found
        else:
            state[name] = found.form.unpack(StoredLinear(found, None), wide)
    network.load_state_dict(state, strict=False, assign=True)
    for layer, matrix in matrices.items():
        put_linear(network, layer, matrix, network.get_submodule(layer).bias)
    if history:
        _give_history(network, {name: _full(source.read()).to(dtype) for name, source in history.items()})
    return network.requires_grad_(False).eval()


def _fitted(file: TensorFile, kind: str, config: Mapping[str, Any]) -> tuple[dict[str, _Source], dict[str, _Source]]:
    """Where each tensor of the network, and each of its history weights, is in the file."""
    network = skeleton(file.path, lambda: getattr(diffusers, kind).from_config(dict(config)))
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    where = places({_stem(name) for name in wanted})
    found: dict[str, _Source] = {}
    history: dict[str, _Source] = {}
    for name, entry in file.entries.items():
        if name.startswith(_HISTORY):
            history[name.removeprefix(_HISTORY)] = _whole(entry)
            continue
        for target, source in _assigned(name, entry, where, wanted).items():
            if target in found:
                raise ModelError(f"{file.path} holds {target} twice, once as {name}")
            found[target] = source
    try:
        check_fit(file.path, {name: source.shape for name, source in found.items()}, wanted)
    except ModelError as error:
        if (file.path.parent / "config.json").is_file():
            raise
        raise ModelError(
            f"{error}. There is no config.json beside the file: its sizes were read off its tensors"
        ) from error
    return found, history


def _assigned(
    name: str, entry: Entry, where: Mapping[str, Place], wanted: Mapping[str, torch.Size]
) -> dict[str, _Source]:
    """The tensors of the network that share one of a file; that itself, where the network has no place for it."""
    place = where.get(_stem(name))
    if place is None:
        return {name: _whole(entry)}
    suffix = _SUFFIXES.get(name.rpartition(".")[2])
    targets = [layer if layer in wanted else f"{layer}.{suffix}" for layer in place.layers]
    if any(target not in wanted for target in targets):
        return {name: _whole(entry)}
    if len(targets) == 1:
        return {targets[0]: _Source(entry, 0, entry.shape[0], place.swapped)}
    rows = [wanted[target][0] for target in targets]
    if sum(rows) != entry.shape[0]:
        return {targets[0]: _whole(entry)}  # to be refused with both shapes
    starts = [sum(rows[:index]) for index in range(len(rows))]
    return {
        target: _Source(entry, start, start + count) for target, start, count in zip(targets, starts, rows, strict=True)
    }


def _whole(entry: Entry) -> _Source:
    return _Source(entry, 0, entry.shape[0] if entry.shape else 0)


def _stem(name: str) -> str:
    """The layer that a tensor belongs to; itself, if it belongs to none."""
    stem, _, own = name.rpartition(".")
    return stem if own in _SUFFIXES else name


def _full_precision(network: nn.Module) -> set[str]:
    """Parts of names whose tensors the class keeps in float32."""
    return set(getattr(network, "_keep_in_fp32_modules", None) or ())


def _full(found: Tensor | Matrix) -> Tensor:
    return found if isinstance(found, Tensor) else found.form.unpack(StoredLinear(found, None), torch.float32)


def _give_history(network: Any, trained: Mapping[str, Tensor]) -> None:
    base = known_frames(network) if hasattr(network, "patch_embedding") else network.x_embedder.proj
    patchify = Patchify(base, trained_kernels(trained))
    patchify.load_state_dict(trained)
    network.history_patch_embed = patchify
