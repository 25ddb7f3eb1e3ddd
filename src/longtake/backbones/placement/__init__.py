"""Large transformers in little memory: what lies where, what a step needs, and when it comes.

plan        bytes of each profile, and the first that fits
modulation  what depends on step and prompt alone, as tables instead of matrices
streaming   blocks in host memory that come to the device one ahead of their turn
"""

from longtake.backbones.placement.layout import settle
from longtake.backbones.placement.modulation import PromptInputs, Tables, tabulate
from longtake.backbones.placement.plan import PROFILES, Placement, Profile, choose, place
from longtake.backbones.placement.streaming import Host, Streaming, stream_blocks

__all__ = [
    "PROFILES",
    "Host",
    "Placement",
    "Profile",
    "PromptInputs",
    "Streaming",
    "Tables",
    "choose",
    "place",
    "settle",
    "stream_blocks",
    "tabulate",
]
