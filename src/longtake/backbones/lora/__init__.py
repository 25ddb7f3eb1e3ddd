"""LoRA files of any trainer become adapters of a backbone, and say what of them arrived."""

from longtake.backbones.lora.adapters import LoraReport, apply_loras, foresee_loras, remove_loras
from longtake.backbones.lora.asked import Lora, Loras, meant_for
from longtake.backbones.lora.file import LoraFile, LoraLayer, outline_lora, read_lora

__all__ = [
    "Lora",
    "LoraFile",
    "LoraLayer",
    "LoraReport",
    "Loras",
    "apply_loras",
    "foresee_loras",
    "meant_for",
    "outline_lora",
    "read_lora",
    "remove_loras",
]
