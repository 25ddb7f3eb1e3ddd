"""LoRAs in a network: several at once, each with a weight, as peft's adapters beside weights that stay as they are.

The order in which a network is prepared matters:

    load  ->  quantize or cast the storage  ->  apply LoRAs  ->  install seams, offloading  ->  compile

An adapter wraps a layer. Around a layer that already carries hooks, it would see what the hooks made of its output, and
is refused; hooks around the wrapped layer see the sum, as they should.

diffusers' `load_lora_adapter` is not used: it leaves out what it does not know, and casts the adapters of 8-bit weights
to 8 bits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from diffusers.models.modeling_utils import ModelMixin
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as Adapted
from torch import nn

from longtake.backbones.lora.file import LoraFile, LoraLayer
from longtake.backbones.names import Place, places
from longtake.errors import ModelError

__all__ = ["LoraReport", "apply_loras", "foresee_loras", "remove_loras"]


Layer: TypeAlias = nn.Linear | nn.Conv3d


@dataclass(frozen=True, slots=True)
class LoraReport:
    """What became of a file's tensors in a network. Each is in one of the three."""

    file: str
    weight: float
    looks: str
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]  # the network has no place for them, or they are no plain LoRA's
    zero: tuple[str, ...]  # they fit, and change nothing
    foreseen: bool = False  # from the file's header: which fit and change nothing is not known
    network: str = ""  # high or low, of a model that has two

    def __str__(self) -> str:
        """One sentence, and one more for each thing to know."""
        total = len(self.matched) + len(self.unmatched) + len(self.zero)
        where = f" in the network for {self.network} noise" if self.network else ""
        became = "have a place" if self.foreseen else "applied"
        lines = [
            f"{self.file} at {self.weight:g}{where} ({self.looks}): {len(self.matched)} of {total} tensors {became}"
        ]
        for what, keys in (("no place in this model", self.unmatched), ("no effect", self.zero)):
            if keys:
                have = "has" if len(keys) == 1 else "have"
                lines.append(f"  {len(keys)} {have} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A file beside a network: what each of its layers gets, and what is said of it."""

    parts: Mapping[str, LoraLayer]
    report: LoraReport


def apply_loras(transformer: ModelMixin, loras: Sequence[tuple[LoraFile, float]]) -> tuple[LoraReport, ...]:
    """Gives the network these LoRAs and no others; what became of each file is told in their order.

    All files are checked before the network is touched.

    Raises:
        ModelError: nothing of a file matched, it was made for a model of another size, or a layer that it changes has
            hooks already.
    """
    fits = _fits(transformer, loras)
    remove_loras(transformer)
    trainable = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    for number, fit in enumerate(fits):
        if fit.parts:
            _inject(transformer, f"lora_{number}", fit)
    for module in transformer.modules():
        if isinstance(module, Adapted):
            module.set_adapter(list(module.scaling))  # peft leaves active what came last
    transformer.requires_grad_(False)  # peft freezes and unfreezes as for training
    for parameter in trainable:
        parameter.requires_grad_(True)
    return tuple(fit.report for fit in fits)


def foresee_loras(transformer: nn.Module, loras: Sequence[tuple[LoraFile, float]]) -> tuple[LoraReport, ...]:
    """What would become of these LoRAs in a network; outlines of both, on the meta device, will do.

    Raises:
        ModelError: as `apply_loras`.
    """
    return tuple(fit.report for fit in _fits(transformer, loras))


def remove_loras(transformer: nn.Module) -> None:
    """Takes every LoRA out of the network, which is then what it was, to the last bit.

    A layer around which hooks were installed keeps its wrapper, empty.
    """
    for name, module in list(transformer.named_modules()):
        if not isinstance(module, Adapted):
            continue
        module.set_adapter([])
        for adapter in list(module.scaling):
            module.delete_adapter(adapter)
        if not _is_hooked(transformer.get_submodule(name)):
            parent, _, own = name.rpartition(".")
            setattr(transformer.get_submodule(parent), own, module.get_base_layer())


def _layers(transformer: nn.Module) -> dict[str, Layer]:
    """The layers that a LoRA can change, by their names without adapters."""
    return {
        name.removesuffix(".base_layer"): module
        for name, module in transformer.named_modules()
        if isinstance(module, Layer) and not re.search(r"\.lora_[AB]\.", name)
    }


def _fits(transformer: nn.Module, loras: Sequence[tuple[LoraFile, float]]) -> list[_Fit]:
    layers = _layers(transformer)
    return [_fitted(file, weight, layers, type(transformer).__name__) for file, weight in loras]


def _is_hooked(module: nn.Module) -> bool:
    """True if something other than a cast of its storage is installed on the module itself."""
    registry = getattr(module, "_diffusers_hook", None)
    names = set(registry.hooks) if registry is not None else set()
    return bool(module._forward_hooks or module._forward_pre_hooks or names - {"layerwise_casting"})


def _fitted(file: LoraFile, weight: float, layers: Mapping[str, Layer], model: str) -> _Fit:
    """The parts of a file, cut for the layers of the network."""
    where = places(layers)
    parts: dict[str, LoraLayer] = {}
    matched, zero, unmatched = [], [], list(file.foreign)
    for layer in file.layers:
        place = where.get(layer.name)
        if place is None:
            unmatched += layer.keys
            continue
        cut = _cut(file, layer, place, layers, model)
        if layer.does_nothing:
            zero += layer.keys
            continue
        matched += layer.keys
        for name, part in cut.items():
            if name in parts:
                raise ModelError(f"{file.path} changes {name} twice, by {parts[name].keys[0]} and by {part.keys[0]}")
            if _is_hooked(layers[name]):
                raise ModelError(f"{file.path} changes {name}, on which hooks are installed; apply LoRAs before them")
            parts[name] = part
    if not matched and not zero:
        raise ModelError(
            f"{file.path}: none of its {len(unmatched)} tensors fits. The file looks like {file.looks}; "
            f"the model is a {model}, with layers like {next(iter(layers))}"
        )
    report = LoraReport(
        file.path.name, weight, file.looks, tuple(matched), tuple(unmatched), tuple(zero), file.outlined
    )
    return _Fit(parts, report)


def _cut(
    file: LoraFile, layer: LoraLayer, place: Place, layers: Mapping[str, Layer], model: str
) -> dict[str, LoraLayer]:
    """What each of the network's layers at `place` gets of a layer of the file, whose rows they share."""
    sizes = [_sizes(layers[name]) for name in place.layers]
    rows = [size[0] for size in sizes]
    given, wanted = (len(layer.up), *layer.down.shape[1:]), (sum(rows), *sizes[0][1:])
    if given != wanted or layer.up.shape[2:].numel() != 1:
        raise ModelError(
            f"{file.path} was made for another model: {layer.keys[0]} and its other half make a weight of {given}, "
            f"where {' + '.join(place.layers)} of this {model} has {wanted}. The file looks like {file.looks}"
        )
    shift = len(layer.up) // 2 if place.swapped else 0
    ups = layer.up.roll(shift, 0).split(rows)
    biases = layer.bias.roll(shift, 0).split(rows) if layer.bias is not None else [None] * len(rows)
    return {name: replace(layer, up=up, bias=bias) for name, up, bias in zip(place.layers, ups, biases, strict=True)}


def _sizes(layer: Layer) -> tuple[int, ...]:
    """The shape of a layer's weight; that of a quantized weight's storage may be another."""
    if isinstance(layer, nn.Linear):
        return (layer.out_features, layer.in_features)
    return (layer.out_channels, layer.in_channels, *layer.kernel_size)


def _inject(transformer: ModelMixin, adapter: str, fit: _Fit) -> None:
    """Puts the parts of one file beside the layers that they change."""
    rank = Counter(part.rank for part in fit.parts.values()).most_common(1)[0][0]
    config = LoraConfig(
        r=rank,
        rank_pattern={f"^{re.escape(name)}": part.rank for name, part in fit.parts.items() if part.rank != rank},
        target_modules="|".join(map(re.escape, fit.parts)),
        lora_bias=any(part.bias is not None for part in fit.parts.values()),
        inference_mode=True,
    )
    inject_adapter_in_model(config, transformer, adapter, low_cpu_mem_usage=True)
    del transformer.peft_config  # nothing asks for it, and peft would warn of it at the next file
    dtype = transformer.dtype
    for name, part in fit.parts.items():
        wrapped = transformer.get_submodule(name)
        assert isinstance(wrapped, Adapted)
        _fill(wrapped, adapter, part, dtype)
        wrapped.lora_alpha[adapter] = part.scale * part.rank
        wrapped.set_scale(adapter, fit.report.weight)


def _fill(wrapped: Adapted, adapter: str, part: LoraLayer, dtype: torch.dtype) -> None:
    """Gives an adapter its weights, in the dtype that its layer computes with; `dtype` where the storage is another."""
    weight = wrapped.get_base_layer().get_parameter("weight")
    if weight.is_floating_point() and weight.dtype.itemsize > 1:
        dtype = weight.dtype
    down, up = wrapped.lora_A[adapter], wrapped.lora_B[adapter]
    down.weight = nn.Parameter(part.down.to(weight.device, dtype))
    up.weight = nn.Parameter(part.up.to(weight.device, dtype))
    if up.bias is not None:
        bias = part.bias if part.bias is not None else torch.zeros(len(part.up))
        up.bias = nn.Parameter(bias.to(weight.device, dtype))
