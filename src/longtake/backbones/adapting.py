"""What is done to a transformer's matrices once it is loaded, before it is entered by seams or placed."""

from __future__ import annotations

from diffusers.models.modeling_utils import ModelMixin

from longtake.backbones.lora import LoraReport, apply_loras, read_lora
from longtake.backbones.outline import Loaded
from longtake.backbones.placement.fp8 import compute_in_fp8
from longtake.backbones.placement.storage import store_linears

__all__ = ["adapt"]


def adapt(transformer: ModelMixin, how: Loaded) -> tuple[LoraReport, ...]:
    """Stores the matrices as was asked and puts LoRAs over them; what became of these.

    Raises:
        ModelError: a LoRA does not fit the network, or the device does not compute in eight bits.
    """
    store_linears(transformer, how.storage, how.home)
    if how.fp8:
        compute_in_fp8(transformer, how.home)
    return apply_loras(transformer, [(read_lora(path), weight) for path, weight in how.loras.items()])
