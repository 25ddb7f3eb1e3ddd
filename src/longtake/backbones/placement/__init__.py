"""Large transformers in little memory: what lies where, what a step needs, and when it comes."""

from longtake.backbones.placement.modulation import PromptInputs, Tables, tabulate
from longtake.backbones.placement.streaming import Host, Streaming, stream_blocks

__all__ = ["Host", "PromptInputs", "Streaming", "Tables", "stream_blocks", "tabulate"]
