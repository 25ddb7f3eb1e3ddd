"""A plan as the studio tells it: plain data, with everything that a page draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from longtake.pipeline.request import Config
from longtake.plan import Script

__all__ = ["plan_json"]


def plan_json(config: Config, script: Script, spatial_ratio: int, estimate: float | None = None) -> dict[str, Any]:
    """The sections of a video in the order of making, and what snapped where.

    Args:
        config: of the video.
        script: what its storyboard tells each section.
        spatial_ratio: pixels of a latent, of the model's codec.
        estimate: seconds that the whole video will take, if that is known.
    """
    plan = config.plan()
    h, w = config.height // spatial_ratio, config.width // spatial_ratio
    first = {None: 1, "after": config.made_images.start, "before": 0}[config.source and config.source.side]
    sections = []
    for section in plan.sections:
        place = plan.place_of(section)
        images = config.images_at(place)
        begin = max(images.start, first)
        sections.append(
            {
                "index": section.index,
                "place": place,
                "frames": [section.frames[0], section.frames[-1] + 1],
                "images": [begin, images.stop],
                "start": begin / config.fps,
                "end": images.stop / config.fps,
                "seen": list(merged(section.seen)),
                "context_tokens": section.context_tokens(h, w),
                "prompt": config.prompt_of(section),
                "seed": config.seed_of(section),
            }
        )
    return {
        "order": config.order,
        "schedule": config.schedule,
        "steps": config.steps,
        "fps": config.fps,
        "frames": config.frames,
        "images": config.images,
        "width": config.width * config.scale,
        "height": config.height * config.scale,
        "first_images": first,
        "sections": sections,
        "told": [f"{snap.asked:g} s -> {snap.got:g} s  {snap.cue}" for snap in script.snaps],
        "estimate_seconds": estimate,
        "context_tokens_max": max(section["context_tokens"] for section in sections),
    }


def merged(frames: Iterable[int]) -> Iterator[list[int]]:
    """Frames as half-open ranges, those in a row as one.

    >>> list(merged([5, 0, 6, 7, 9]))
    [[0, 1], [5, 8], [9, 10]]
    """
    for _, run in groupby(enumerate(sorted(frames)), key=lambda pair: pair[1] - pair[0]):
        row = [frame for _, frame in run]
        yield [row[0], row[-1] + 1]
