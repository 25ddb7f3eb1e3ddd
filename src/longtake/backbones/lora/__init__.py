"""LoRA files of any trainer become adapters of a backbone, and say what of them arrived."""

from longtake.backbones.lora.adapters import LoraReport, apply_loras, remove_loras
from longtake.backbones.lora.file import LoraFile, LoraLayer, read_lora

__all__ = ["LoraFile", "LoraLayer", "LoraReport", "apply_loras", "read_lora", "remove_loras"]
