"""What making one section is, as numbers: tokens, operations, evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from longtake.backbones.blueprints import Blueprint
from longtake.backbones.hunyuan.buckets import Bucket
from longtake.backbones.workload import Operations, Tokens, operations_of, tokens_of, traffic_of
from longtake.pipeline.request import Config
from longtake.plan import images_of
from longtake.schedule import Kernel, Schedule, parse

__all__ = ["Stage", "Work", "grid_of", "work_at", "work_of"]


@dataclass(frozen=True, slots=True)
class Stage:
    """The steps of a section at one size."""

    steps: int
    operations: Operations  # of one evaluation
    traffic: float  # bytes, likewise
    fused_traffic: float  # those on a GPU for which there are kernels


@dataclass(frozen=True, slots=True)
class Work:
    """One section, as numbers."""

    size: Bucket  # of an image
    frames: int  # that it makes
    images: int
    tokens: Tokens  # at its size
    steps: int  # of all stages
    stages: tuple[Stage, ...]  # coarse to fine; mostly one
    passes: int  # evaluations a step
    disk: int  # bytes of the run folder


def grid_of(blueprint: Blueprint, size: Bucket) -> tuple[int, int]:
    """Height and width of a frame, in latents."""
    return size.height // blueprint.spatial_ratio, size.width // blueprint.spatial_ratio


def work_at(
    blueprint: Blueprint, size: Bucket, schedule: Schedule, steps: int, passes: int, context_tokens: int
) -> Work:
    """The work of a section.

    Args:
        blueprint: of the model.
        size: of an image, multiples of the model's grid.
        schedule: what the section sees.
        steps: of the solver, at all sizes.
        passes: evaluations a step: one, and one more for each kind of guidance.
        context_tokens: that the section sees.
    """
    h, w = grid_of(blueprint, size)
    sampling, transformer = blueprint.settings.sampling, blueprint.transformer
    each = sampling.spread(steps).usual.steps if sampling else (steps,)

    def tokens_at(halvings: int) -> Tokens:
        kernel = Kernel(1, blueprint.patch, blueprint.patch)
        noisy = kernel.tokens(schedule.generated, h >> halvings, w >> halvings)
        return tokens_of(blueprint, noisy, context_tokens)

    sizes = [tokens_at(len(each) - number) for number in range(1, len(each) + 1)]
    images = images_of(schedule.generated, blueprint.temporal_ratio, blueprint.settings.manner)
    # Latents in float32, and what is made of them twice (segment and growing video) at two bits a pixel.
    disk = 4 * blueprint.channels * h * w * schedule.generated + 2 * images * size.height * size.width // 4
    return Work(
        size=size,
        frames=schedule.generated,
        images=images,
        tokens=sizes[-1],
        steps=sum(each),
        stages=tuple(
            Stage(
                count,
                operations_of(transformer, tokens),
                traffic_of(transformer, tokens),
                traffic_of(transformer, tokens, fused=True),
            )
            for count, tokens in zip(each, sizes, strict=True)
        ),
        passes=passes,
        disk=disk,
    )


def work_of(blueprint: Blueprint, config: Config) -> Work:
    """The work of the section of a video that sees most."""
    size, plan = Bucket(config.height, config.width), config.plan()
    h, w = grid_of(blueprint, size)
    guidances = {config.guidance_of(section) > 1 for section in plan.sections}
    return work_at(
        blueprint,
        size,
        parse(config.schedule),
        config.steps,
        passes=1 + (True in guidances) + (config.history_guidance > 1),
        context_tokens=max(section.context_tokens(h, w) for section in plan.sections),
    )
