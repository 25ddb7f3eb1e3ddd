"""A backbone set up on a machine for one video: what lies where, which kernel attends, which steps are skipped.

The order matters, and each step is met by those after it:

    attention kernel  ->  modulation tables  ->  resident or streamed blocks, compiled before  ->  step cache
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.attention import Kernel, always_masks, best_kernel, use_kernel
from longtake.backbones.backbone import Backbone
from longtake.backbones.caches import CACHES, install_cache
from longtake.backbones.families import Conditioning
from longtake.backbones.hunyuan.blocks import fuse_blocks
from longtake.backbones.hunyuan.codec import HunyuanCodec, Tiled
from longtake.backbones.hunyuan.conditioning import HunyuanConditioning
from longtake.backbones.hunyuan.network import as_told
from longtake.backbones.parallel import COMPILE_OPTIONS
from longtake.backbones.placement import PROFILES, Profile, PromptInputs, settle, stream_blocks, tabulate
from longtake.backbones.placement.layout import repeated_blocks
from longtake.errors import InputError

__all__ = ["Demand", "Runtime", "find_profile", "running"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """On which device a model runs and how. None of it changes the video by more than round-off."""

    device: str = "auto"  # a GPU where there is one
    profile: str = "auto"  # where weights lie: one of `PROFILES`, or the first that fits and changes nothing
    attention: Kernel | Literal["auto"] = "auto"
    compile: bool = False  # the blocks of networks that are not fused by hand: a minute of waiting, then faster steps


@dataclass(frozen=True, slots=True)
class Demand:
    """What a video asks of a network."""

    tokens: int  # of the longest sequence that its blocks see
    levels: Float[Tensor, " k"]  # the sigmas at which it is asked
    told: Sequence[Conditioning]  # all that sections are told
    cache: str = "none"  # of steps, one of `CACHES`
    tiled: Tiled = False  # how the codec passes images, where it can do so in parts


@contextmanager
def running(
    backbone: Backbone, device: torch.device, runtime: Runtime, demand: Demand, shared: bool = False
) -> Iterator[Backbone]:
    """The backbone as it runs inside this context; tables, streaming and cache are taken out of it afterwards.

    The profile has been chosen by then: it is no longer "auto". With `shared`, devices will divide its tokens among
    them: where its blocks are compiled, exchanges can overlap with what they compute.

    Raises:
        ModelError: no profile fits, or the network cannot be run in the way that was asked for.
    """
    with ExitStack() as stack:
        if isinstance(backbone.codec, HunyuanCodec):
            backbone.codec.tile(demand.tiled)
        second = backbone.second and _set_up(backbone.second, device, runtime, demand, shared, stack)
        yield replace(_set_up(backbone, device, runtime, demand, shared, stack), second=second)


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        InputError: there is none.
    """
    for profile in PROFILES:
        if profile.name == name:
            return profile
    raise InputError(f"unknown profile {name!r}; there are auto, {', '.join(profile.name for profile in PROFILES)}")


@torch.inference_mode(False)
@torch.no_grad()  # inside: leaving inference mode turns gradients on
def _set_up(
    backbone: Backbone, device: torch.device, runtime: Runtime, demand: Demand, shared: bool, stack: ExitStack
) -> Backbone:
    transformer, kernel = backbone.transformer, runtime.attention
    if kernel == "auto":
        head_size, masked = transformer.config["attention_head_dim"], always_masks(transformer)
        kernel = best_kernel(device, backbone.dtype, head_size, masked)
    use_kernel(transformer, kernel)
    profile = find_profile(runtime.profile)
    _place(backbone, device, profile, demand, stack)
    _quicken(backbone, device, runtime.compile, shared, stays=profile.blocks == "resident")
    if profile.blocks == "streamed":
        streaming = stream_blocks(transformer, device, slots=profile.slots, host=profile.host, storage=profile.storage)
        stack.callback(streaming.remove)
    remarks = backbone.remarks
    if device.type != "cpu":
        remarks = (*remarks, f"{device}: weights {profile.name}, attention by {kernel}")
    if demand.cache == "none":
        return replace(backbone, remarks=remarks)
    kind = CACHES[demand.cache]
    cache = install_cache(transformer, demand.cache, kind.threshold, len(demand.levels))
    stack.callback(cache.remove)
    remarks = (*remarks, f"steps are skipped by {demand.cache}, quality {kind.quality}: {kind.says}")
    return replace(backbone, remarks=remarks, cache=cache)


def _place(backbone: Backbone, device: torch.device, profile: Profile, demand: Demand, stack: ExitStack) -> None:
    transformer = backbone.transformer
    if profile.tables:
        tables = tabulate(transformer, device, *_tabulated(backbone, device, demand))
        stack.callback(tables.remove)
    if profile.blocks == "resident":
        settle(transformer, device)


def _quicken(backbone: Backbone, device: torch.device, compile: bool, shared: bool, stays: bool) -> None:
    if backbone.family.name == "hunyuan" and device.type == "cuda":
        fuse_blocks(backbone.transformer, backbone.seams, together=stays)  # there is nothing left in them to compile
    elif compile:
        for block in repeated_blocks(backbone.transformer):
            block.compile(options=COMPILE_OPTIONS if shared else None)


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
