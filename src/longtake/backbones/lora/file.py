"""A LoRA file, read: low-rank layers under the names that its trainer gave them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from peft.utils.other import get_pattern_key
from torch import Tensor

from longtake.backbones.weights import outline_tensors, read_json, read_note, read_tensors
from longtake.errors import ModelError

__all__ = ["LoraFile", "LoraLayer", "outline_lora", "read_lora"]

# How trainers call the parts of a layer.
_ROLES = {
    "lora_A.weight": "down",
    "lora_A.default.weight": "down",
    "lora_down.weight": "down",
    "lora_B.weight": "up",
    "lora_B.default.weight": "up",
    "lora_up.weight": "up",
    "alpha": "alpha",
    "lora_B.bias": "bias",  # scaled as the weights are
    "diff_b": "difference",  # of the biases, not scaled
}
_PREFIX = re.compile(
    r"(?:base_model\.model\.)?(?:transformer\.|diffusion_model\.|model\.diffusion_model\.|lora_unet_)?"
)

# The first whose expression is found in a name says what the file looks like.
_LOOKS = {
    "Stable Diffusion": r"(?:down|up|input|output|middle)_blocks|mid_block|^lora_te\d?_",
    "Flux, original names": r"_mlp[._][02]\b|_mod[._]lin\b|modulation[._]lin\b",
    "HunyuanVideo, original names": r"(?:double|single)_blocks[._]\d",
    "HunyuanVideo or FramePack, diffusers' names": r"transformer_blocks[._]\d",
    "Wan, original names": r"blocks[._]\d+[._](?:self_attn|cross_attn|ffn[._]\d)",
    "Wan, diffusers' names": r"blocks[._]\d+[._](?:attn[12]|ffn[._]net)",
}


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """What a file adds to one layer: scale times the weight up @ down and, perhaps, a bias."""

    name: str  # without the prefix that says only "the transformer"
    keys: tuple[str, ...]  # its tensors in the file
    down: Float[Tensor, "r ..."]
    up: Float[Tensor, "o r ..."]
    scale: float  # alpha / r
    bias: Float[Tensor, " o"] | None = None

    @property
    def rank(self) -> int:
        """How many directions of its input it sees."""
        return self.down.shape[0]

    @property
    def does_nothing(self) -> bool:
        """True if what it adds is zero; of an outline only the scale says so."""
        if self.scale == 0 or self.up.is_meta:
            return self.scale == 0
        weight = bool(self.down.any()) and bool(self.up.any())
        return not (weight or (self.bias is not None and bool(self.bias.any())))


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA as it lies on disk; which model it fits is not yet asked."""

    path: Path
    layers: tuple[LoraLayer, ...]
    foreign: tuple[str, ...]  # tensors that are not, or not only, a plain low-rank layer's
    trained_for: str = ""  # what the trainer wrote into the header
    outlined: bool = False  # its tensors are on the meta device

    @property
    def keys(self) -> tuple[str, ...]:
        """Every tensor of the file."""
        return tuple(sorted([*self.foreign, *(key for layer in self.layers for key in layer.keys)]))

    @property
    def looks(self) -> str:
        """What kind of LoRA its names speak of."""
        keys = self.keys
        kinds = [kind for kind, expression in _LOOKS.items() if any(re.search(expression, key) for key in keys)]
        unknown = f"an unknown kind of file, with names like {keys[0]}" if keys else "an empty file"
        flat = ", flattened" if any(key.startswith("lora_unet_") for key in keys) else ""
        said = f"; its header says {self.trained_for}" if self.trained_for else ""
        return (kinds[0] + flat if kinds else unknown) + said


def read_lora(path: str | Path) -> LoraFile:
    """The LoRA in a safetensors file.

    The strength of a layer, alpha / rank, is taken from the file's tensors, from the adapter's config in its header
    (diffusers) or beside it (peft); where none of them speaks, it is 1.

    Raises:
        ModelError: there is no such file, it is a pickle, it is cut short, or a layer's two halves don't fit.
    """
    path = _checked(path)
    return _file(path, read_tensors([path], ""))


def outline_lora(path: str | Path) -> LoraFile:
    """The same from the file's header alone, its tensors on the meta device: enough to see whether it fits a network.

    Raises:
        ModelError: as `read_lora`.
    """
    path = _checked(path)
    return replace(_file(path, outline_tensors(path)), outlined=True)


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the LoRA's .safetensors file in it")
    if not path.is_file():
        raise ModelError(f"{path}: there is no such LoRA file")
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path}: a LoRA is read from safetensors only, for a pickle can run any program; "
            "look for a .safetensors file of it, or convert it"
        )
    return path


def _file(path: Path, tensors: Mapping[str, Tensor]) -> LoraFile:
    note = read_note(path)
    config = _adapter_config(path, note)
    found = _grouped(tensors)
    layers = tuple(_layer(path, prefixed, parts, tensors, config) for prefixed, parts in found.items())
    claimed = {key for layer in layers for key in layer.keys}
    return LoraFile(
        path=path,
        layers=layers,
        foreign=tuple(sorted(tensors.keys() - claimed)),
        trained_for=note.get("modelspec.architecture", "") or note.get("ss_base_model_version", ""),
    )


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Plain layers: their names in the file, and the key of each part."""
    groups: dict[str, dict[str, str]] = {}
    others = []
    for key in tensors:
        role = next((role for role in _ROLES if key.endswith(f".{role}")), None)
        if role is None:
            others.append(key)
        else:
            groups.setdefault(key.removesuffix(f".{role}"), {})[_ROLES[role]] = key
    # A layer with a further part (DoRA's magnitudes, a Tucker core) is not what its two halves alone would add.
    spoiled = {".".join(words[:n]) for key in others for words in [key.split(".")] for n in range(1, len(words))}
    return {n: parts for n, parts in groups.items() if {"down", "up"} <= parts.keys() and n not in spoiled}


def _layer(
    path: Path, prefixed: str, parts: Mapping[str, str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> LoraLayer:
    name = _PREFIX.sub("", prefixed, count=1)
    down, up = tensors[parts["down"]], tensors[parts["up"]]
    rank = down.shape[0] if down.ndim else 0
    if down.ndim < 2 or up.ndim < 2 or up.shape[1] != rank or rank == 0:
        shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise ModelError(f"{path}: the halves of {prefixed} are {shapes}, which don't fit; fetch the file again")
    if "alpha" in parts and tensors[parts["alpha"]].numel() != 1:
        raise ModelError(f"{path}: {parts['alpha']} is not one number; fetch the file again")
    scale = tensors[parts["alpha"]].item() / rank if "alpha" in parts else _declared_scale(name, rank, config)
    bias = tensors[parts["bias"]] if "bias" in parts else None
    if "difference" in parts:
        difference = tensors[parts["difference"]].float()
        bias = difference if bias is None else difference + scale * bias.float()
        up, scale = scale * up.float(), 1.0
    return LoraLayer(name, tuple(parts.values()), down, up, scale, bias)


def _adapter_config(path: Path, note: Mapping[str, str]) -> Mapping[str, Any]:
    """What the trainer says of the adapter: in diffusers' header, or in peft's file beside its weights."""
    if "lora_adapter_metadata" in note:
        try:
            config = json.loads(note["lora_adapter_metadata"])
        except ValueError as error:
            raise ModelError(f"{path}: its header's lora_adapter_metadata cannot be read ({error})") from error
        return {key.removeprefix("transformer."): value for key, value in dict(config).items()}
    beside = path.with_name("adapter_config.json")
    return read_json(beside) if path.name == "adapter_model.safetensors" and beside.is_file() else {}


def _declared_scale(name: str, rank: int, config: Mapping[str, Any]) -> float:
    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), name), config.get("lora_alpha", rank))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
