"""A backbone set up on a machine for one video: what lies where, which kernel attends, which steps are skipped.

The order matters, and each step is met by those after it:

    attention kernel  ->  modulation tables  ->  resident or streamed blocks, compiled before  ->  step cache
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.attention import Kernel, best_kernel, use_kernel
from longtake.backbones.backbone import Backbone
from longtake.backbones.caches import CACHES, install_cache
from longtake.backbones.families import Conditioning
from longtake.backbones.hunyuan.codec import HunyuanCodec
from longtake.backbones.hunyuan.conditioning import HunyuanConditioning
from longtake.backbones.hunyuan.network import as_told
from longtake.backbones.placement import (
    PROFILES,
    Placement,
    Profile,
    PromptInputs,
    choose,
    place,
    settle,
    stream_blocks,
    tabulate,
)
from longtake.backbones.placement.layout import repeated_blocks
from longtake.errors import InputError

__all__ = ["CODEC_ROOM", "Demand", "Runtime", "find_profile", "lockable_bytes", "running"]

CODEC_ROOM = 8 * 2**30  # bytes on the device that decoding at 640 x 608 takes if it is not tiled (7.63 GiB measured)
LOCKED = 0.8  # of the host memory that is free may be pinned: the rest is for weights being read, and other programs


@dataclass(frozen=True, slots=True)
class Runtime:
    """On which device a model runs and how. None of it changes the video by more than round-off."""

    device: str = "auto"  # a GPU where there is one
    profile: str = "auto"  # where weights lie: one of `PROFILES` that changes nothing, or the first that fits
    attention: Kernel | Literal["auto"] = "auto"
    compile: bool = False  # the network's blocks: a minute of waiting, then steps are a fifth faster


@dataclass(frozen=True, slots=True)
class Demand:
    """What a video asks of a network."""

    tokens: int  # of the longest sequence that its blocks see
    levels: Float[Tensor, " k"]  # the sigmas at which it is asked
    told: Sequence[Conditioning]  # all that sections are told
    cache: str = "none"  # of steps, one of `CACHES`


@contextmanager
def running(backbone: Backbone, device: torch.device, runtime: Runtime, demand: Demand) -> Iterator[Backbone]:
    """The backbone as it runs inside this context; tables, streaming and cache are taken out of it afterwards.

    Raises:
        ModelError: no profile fits, or the network cannot be run in the way that was asked for.
    """
    with ExitStack() as stack:
        second = backbone.second and _set_up(backbone.second, device, runtime, demand, stack, share=2)
        yield replace(_set_up(backbone, device, runtime, demand, stack, 2 if second else 1), second=second)


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        InputError: there is none.
    """
    for profile in PROFILES:
        if profile.name == name:
            return profile
    raise InputError(f"unknown profile {name!r}; there are auto, {', '.join(profile.name for profile in PROFILES)}")


def lockable_bytes() -> int:
    """How much host memory may be pinned, about: most of what is free, where the system says how much that is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 2**63
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return int(LOCKED * 1024 * free)


def _set_up(
    backbone: Backbone, device: torch.device, runtime: Runtime, demand: Demand, stack: ExitStack, share: int
) -> Backbone:
    transformer, remarks = backbone.transformer, backbone.remarks
    kernel = runtime.attention
    if kernel == "auto":
        kernel = best_kernel(device, backbone.dtype, transformer.config["attention_head_dim"])
    use_kernel(transformer, kernel)
    if device.type != "cpu" or runtime.profile != "auto":
        placement = _placement(backbone, device, runtime.profile, demand.tokens, share)
        _place(backbone, device, runtime.compile, placement.profile, demand, stack)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**63
        if isinstance(backbone.codec, HunyuanCodec):
            backbone.codec.tile(free < CODEC_ROOM)
        remarks = (*remarks, f"{placement.profile.name}, {kernel} attention, on {device}")
    if demand.cache == "none":
        return replace(backbone, remarks=remarks)
    cache = install_cache(transformer, demand.cache, CACHES[demand.cache].threshold, len(demand.levels))
    stack.callback(cache.remove)
    return replace(backbone, remarks=remarks, cache=cache)


def _placement(backbone: Backbone, device: torch.device, name: str, tokens: int, share: int) -> Placement:
    if name != "auto":
        return place(backbone.transformer, tokens, find_profile(name))
    free = torch.cuda.mem_get_info(device)[0]
    return choose(backbone.transformer, tokens, free // share, lockable_bytes() // share)


def _place(
    backbone: Backbone, device: torch.device, compile: bool, profile: Profile, demand: Demand, stack: ExitStack
) -> None:
    transformer = backbone.transformer
    if profile.tables:
        tables = tabulate(transformer, device, *_tabulated(backbone, device, demand))
        stack.callback(tables.remove)
    if compile:
        for block in repeated_blocks(transformer):
            block.compile()
    if profile.blocks == "streamed":
        streaming = stream_blocks(transformer, device, slots=profile.slots, host=profile.host, storage=profile.storage)
        stack.callback(streaming.remove)
    elif profile.tables:
        settle(transformer, device)
    else:
        transformer.to(device)


def _tabulated(
    backbone: Backbone, device: torch.device, demand: Demand
) -> tuple[Tensor, list[PromptInputs], Tensor | None]:
    """The timesteps, prompts and guidance that the network will be given, as it will be given them."""
    settings = backbone.settings
    prompts = []
    for told in demand.told:
        assert isinstance(told, HunyuanConditioning)  # no other network has tables
        told = told.to(device, backbone.dtype)
        prompts.append(PromptInputs(told.text, told.mask, told.pooled))
    guidance = None
    if backbone.transformer.config["guidance_embeds"]:
        level = 10.0 if settings.distilled_guidance is None else settings.distilled_guidance
        guidance = as_told(torch.tensor([level]), settings.compat).to(device)
    return as_told(demand.levels, settings.compat).to(device), prompts, guidance
