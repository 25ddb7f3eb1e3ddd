"""Roll-outs: many scenes at once, section after section, without files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.backbones.backbone import Backbone
from longtake.backbones.hunyuan.reader import HunyuanReader
from longtake.backbones.reading import Draft, Reading, Told, read, velocity_of
from longtake.backbones.wan_images import WanReader
from longtake.errors import ModelError
from longtake.flow import SOLVERS, noise, sigmas
from longtake.packing import Discretization, History
from longtake.plan import Plan, Section

__all__ = ["make_section", "roll_out"]


@torch.no_grad()
def roll_out(
    backbone: Backbone,
    plan: Plan,
    start: Float[Tensor, "b c 1 h w"],
    prompts: Sequence[Sequence[str]],
    seed: int | Sequence[int] = 0,
    steps: int | None = None,
    solver: str = "euler",
    discretization: Discretization | None = None,
    reading: Reading | None = None,
) -> Float[Tensor, "b c t h w"]:
    """The latents of `b` videos that follow one plan, frame 0 being `start`.

    `prompts[i][k]` is the prompt of video i for section k in order of time; its noise comes from `seed + i`, or from
    `seed[i]`. Without a `reading` history is read as the model wants it.
    """
    settings, reading = backbone.settings, reading or Reading.usual(backbone.settings)
    seeds = range(seed, seed + len(start)) if isinstance(seed, int) else seed
    if not reading.forgets and len(start) > 1:  # each video ranks its own history
        each = zip(start.split(1), prompts, seeds, strict=True)
        alone = (roll_out(backbone, plan, s, [p], [n], steps, solver, discretization, reading) for s, p, n in each)
        return torch.cat(list(alone))
    levels = sigmas(steps or settings.steps, backbone.shift_at(plan.schedule, *start.shape[3:]))
    history = History(discretization=discretization)
    history.remember((0,), start, exact=True)
    for section in plan.sections:
        place = plan.place_of(section)
        words = [prompt[place] for prompt in prompts]
        made = make_section(backbone, plan, section, history, words, seeds, levels, solver, reading)
        history.remember(section.frames, made)
    return history.read(range(plan.frames))


@torch.no_grad()
def make_section(
    backbone: Backbone,
    plan: Plan,
    section: Section,
    history: History,
    prompts: Sequence[str],
    seeds: Sequence[int],
    levels: Float[Tensor, " n"],
    solver: str,
    reading: Reading,
) -> Float[Tensor, "b c t h w"]:
    """One section of `b` videos after what is known of them, each from its own prompt and the noise of its own seed."""
    reader, start = backbone.prompts, history.read((0,))
    if isinstance(reader, HunyuanReader | WanReader):
        raise ModelError(f"{backbone.name}: roll-outs are for models that read prompts alone")
    text = reader.encode(prompts)
    shape = (1, start.shape[1], len(section.frames), *start.shape[3:])
    x = torch.cat([noise(shape, seed, section.index, start.device, torch.float32) for seed in seeds])
    context = read(backbone, plan, section, history, reading, Draft(x.to(start.dtype), text, seeds))
    velocity = velocity_of(backbone, context, Told(text), reading.guidance)
    for x in SOLVERS[solver](velocity, x, levels):  # noqa: B007 - the last one is the result
        pass
    return x.to(start.dtype)
