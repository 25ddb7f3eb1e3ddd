"""How many bytes each way of placing a network takes, before any of them is allocated. Arithmetic on shapes.

    device  =  blocks (all, or as many slots as there are)  +  all else  +  activations
    activations  =  tokens x width x item size x WIDTHS  +  RESERVE

`WIDTHS` is how many vectors of the network's width a token has alive at the fullest moment of its largest block, with
attention that builds no score matrix and blocks that are not compiled (which only ever takes less).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from longtake.backbones.placement.layout import Layout, lay_out, live_tensors, repeated_blocks
from longtake.backbones.placement.modulation import can_be_tabulated, resting_modules
from longtake.backbones.placement.streaming import Host
from longtake.errors import ModelError

__all__ = ["PROFILES", "RESERVE", "Placement", "Profile", "choose", "place", "widths"]

# HunyuanVideo's single block (an MLP of 4 widths beside attention, then all concatenated), counted on live tensors.
_HUNYUAN_WIDTHS = 18.0
# Wan's block at its attention, where norms are in float32; its MLP keeps its input and two hidden layers.
_WAN_WIDTHS, _WAN_MLP_WIDTHS = 12.2, 4.4

# Workspaces of the matrix products and the allocator's rounding: 13 B with one block ahead was measured at 3.39 GiB
# allocated on an H100, 0.11 GiB above what its tensors are.
RESERVE = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Profile:
    """One way of placing a network."""

    name: str
    blocks: Literal["resident", "streamed"]
    tables: bool = False  # of modulation
    host: Host = "pinned"
    storage: torch.dtype | None = None  # of matrices; lossy where it is given
    slots: int = 2


# The first that fits is the best: nothing moves, little moves, much moves, much moves by way of a staging buffer.
PROFILES = (
    Profile("resident", "resident"),
    Profile("resident-tables", "resident", tables=True),
    Profile("streamed-tables", "streamed", tables=True),
    Profile("streamed", "streamed"),
    Profile("streamed-tables-fp8", "streamed", tables=True, storage=torch.float8_e4m3fn),
    Profile("streamed-fp8", "streamed", storage=torch.float8_e4m3fn),
    Profile("staged-tables", "streamed", tables=True, host="staged"),
    Profile("staged", "streamed", host="staged"),
)


@dataclass(frozen=True, slots=True)
class Placement:
    """A profile in bytes, for one network and one number of tokens."""

    profile: Profile
    weights: int  # on the device
    activations: int
    pinned: int  # in host memory, locked
    pageable: int  # in host memory, or in pages of the weights' files
    transfer: int  # from host to device, each step

    @property
    def device(self) -> int:
        """All that is on the device at the fullest moment. The driver's own context is not in it."""
        return self.weights + self.activations


def place(transformer: nn.Module, tokens: int, profile: Profile, per_token: float | None = None) -> Placement:
    """What a profile takes for a forward over `tokens` (a batch's all together), text and history included.

    Args:
        transformer: with the types it will compute in; the meta device will do.
        tokens: of the longest sequence that its blocks see, times the batch.
        profile: one of `PROFILES`, or your own.
        per_token: how many vectors of the network's width a token has alive, if not `widths(transformer)`.

    Raises:
        ModelError: the profile has tables that the network cannot have, or its blocks are unknown.
    """
    resting = {id(t) for module in resting_modules(transformer) for t in _tensors(module)} if profile.tables else set()
    modules = repeated_blocks(transformer)
    layouts = [_layout(module, resting, profile.storage) for module in modules]
    in_blocks = {id(t) for module in modules for t in _tensors(module)}
    others = [t for t in _tensors(transformer) if id(t) not in in_blocks | resting]
    at_rest = sum(t.nbytes for t in _tensors(transformer) if id(t) in resting)
    activations = _activations(transformer, tokens, widths(transformer) if per_token is None else per_token)
    used, stored = sum(each.used_bytes for each in layouts), sum(each.stored_bytes for each in layouts)
    if profile.blocks == "resident":
        blocks, pinned, transfer = used, 0, 0
    else:
        largest = max(each.stored_bytes for each in layouts)
        blocks = profile.slots * max(each.used_bytes for each in layouts) + (0 if profile.storage is None else largest)
        pinned, transfer = stored if profile.host == "pinned" else profile.slots * largest, stored
    pageable = at_rest + (stored if profile.host == "staged" else 0)
    return Placement(profile, blocks + sum(t.nbytes for t in others), activations, pinned, pageable, transfer)


def choose(
    transformer: nn.Module,
    tokens: int,
    device: int,
    pinned: int,
    lossy: bool = False,
    per_token: float | None = None,
) -> Placement:
    """The first of `PROFILES` that fits into so many free bytes on the device and so many that may be pinned.

    Profiles that change the result are among them only with `lossy`.

    Raises:
        ModelError: none fits; the message names the one that needs least.
    """
    profiles = [p for p in PROFILES if can_be_tabulated(transformer) or not p.tables]
    places = [place(transformer, tokens, p, per_token) for p in profiles if lossy or p.storage is None]
    fitting = [each for each in places if each.device <= device and each.pinned <= pinned]
    if fitting:
        return fitting[0]
    least = min(places, key=lambda each: (max(0, each.device - device), max(0, each.pinned - pinned)))
    raise ModelError(
        f"{tokens} tokens do not fit into {_gib(device)} on the device with {_gib(pinned)} pinned in host memory: "
        f"{least.profile.name} would do with {_gib(least.device)} ({_gib(least.activations)} of it for the tokens) "
        f"and {_gib(least.pinned)}. A smaller size or shorter sections need less"
    )


def widths(transformer: nn.Module) -> float:
    """How many vectors of the network's width a token has alive at the fullest moment of a block.

    >>> widths(WanTransformer3DModel(num_attention_heads=1, attention_head_dim=64, ffn_dim=512, num_layers=0))
    20.4
    """
    if isinstance(transformer, WanTransformer3DModel):
        return max(_WAN_WIDTHS, 2 * transformer.config["ffn_dim"] / _width(transformer) + _WAN_MLP_WIDTHS)
    return _HUNYUAN_WIDTHS


def _activations(transformer: nn.Module, tokens: int, per_token: float) -> int:
    # Matrices may be stored in fewer bits; the patch embedding, the one convolution of them all, never is.
    item = next(module for module in transformer.modules() if isinstance(module, nn.Conv3d)).weight.itemsize
    return int(tokens * _width(transformer) * item * per_token) + RESERVE


def _width(transformer: nn.Module) -> int:
    return transformer.config["num_attention_heads"] * transformer.config["attention_head_dim"]  # pyright: ignore


def _layout(module: nn.Module, resting: set[int], storage: torch.dtype | None) -> Layout:
    return lay_out({name: t for name, t in live_tensors(module) if id(t) not in resting}, storage)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
