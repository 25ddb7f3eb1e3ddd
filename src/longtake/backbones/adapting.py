"""What is done to a transformer's matrices once it is loaded, before it is entered by seams or placed."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.models.modeling_utils import ModelMixin

from longtake.backbones.lora import LoraReport, apply_loras, meant_for, read_lora
from longtake.backbones.lora.asked import Network
from longtake.backbones.outline import Loaded
from longtake.backbones.placement.backends import store
from longtake.backbones.placement.fp8 import compute_in_fp8

__all__ = ["adapt"]


def adapt(transformer: ModelMixin, how: Loaded, network: Network | None = None) -> tuple[LoraReport, ...]:
    """Stores the matrices as was asked and puts LoRAs over them; what became of these.

    Args:
        transformer: as it was loaded, where it is at home: to be moved to where it computes, and nowhere else.
        how: it was.
        network: which of a model's two it is.

    Raises:
        ModelError: a LoRA does not fit the network, the device does not compute in eight bits, or a package is missing.
    """
    store(transformer, how.storage, how.home, torch.device(how.device))
    if how.fp8:
        compute_in_fp8(transformer, how.home)
    loras = [(read_lora(lora.file), lora.weight) for lora in meant_for(how.loras, network)]
    return tuple(replace(report, network=network or "") for report in apply_loras(transformer, loras))
