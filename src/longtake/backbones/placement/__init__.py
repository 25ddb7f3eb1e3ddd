"""Large transformers in little memory: what lies where, what a step needs, and when it comes.

storage     matrices of the blocks in fewer bits
backends    the same by torchao and bitsandbytes
fp8         linear layers that compute in eight bits
plan        bytes of each profile, and the first that fits
modulation  what depends on step and prompt alone, as tables instead of matrices
streaming   blocks in host memory that come to the device one ahead of their turn
"""

from longtake.backbones.placement.backends import AnyStorage, back_end_of, form_of, store
from longtake.backbones.placement.fp8 import compute_in_fp8
from longtake.backbones.placement.layout import settle
from longtake.backbones.placement.modulation import PromptInputs, Tables, tabulate
from longtake.backbones.placement.plan import PROFILES, Placement, Profile, choose, place
from longtake.backbones.placement.storage import Storage, StoredLinear, store_linears
from longtake.backbones.placement.streaming import Host, Streaming, stream_blocks

__all__ = [
    "PROFILES",
    "AnyStorage",
    "Host",
    "Placement",
    "Profile",
    "PromptInputs",
    "Storage",
    "StoredLinear",
    "Streaming",
    "Tables",
    "back_end_of",
    "choose",
    "compute_in_fp8",
    "form_of",
    "place",
    "settle",
    "store",
    "store_linears",
    "stream_blocks",
    "tabulate",
]
