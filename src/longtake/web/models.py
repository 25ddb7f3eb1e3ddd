"""The models of a studio, as JSON says them."""

from __future__ import annotations

import json
from typing import Any

from longtake.errors import LongtakeError
from longtake.plan import ORDERS
from longtake.web.settings import Settings

__all__ = ["table"]


def table(settings: Settings) -> list[dict[str, Any]]:
    """What can be asked for by name, the default one first. It needs the engine."""
    return [
        {
            "id": id,
            "object": "model",
            "created": 0,
            "owned_by": "longtake",
            "longtake": {**_traits(place), "default": id == settings.default_model},
        }
        for id, place in settings.models.items()
    ]


def _traits(place: str) -> dict[str, Any]:
    from longtake.backbones import MODELS, BackboneSettings, inspect_model
    from longtake.schedule import find_schedule

    try:
        outline = inspect_model(place)
        wants, present, ratio = outline.settings, True, outline.temporal_ratio
        buckets, books = outline.buckets, outline.codebooks
    except LongtakeError:
        row = MODELS.get(place)
        wants, present, ratio = row.settings if row else BackboneSettings(), False, 4
        buckets, books = row.buckets if row else (), ()
    sizes = [[bucket.width, bucket.height] for bucket in buckets] or [[wants.width, wants.height]]
    schedule = wants.schedules[wants.order] if wants.order in wants.schedules else next(iter(wants.schedules.values()))
    return {
        "present": present,
        "orders": list(ORDERS),
        "order": wants.order,
        "schedules": list(dict.fromkeys(wants.schedules.values())),
        "schedule": schedule,
        "steps": wants.steps,
        "guidance": wants.guidance,
        "size": [wants.width, wants.height],
        "sizes": sizes,
        "fps": wants.fps,
        "section_images": ratio * find_schedule(schedule).generated,
        "codebooks": list(books),
        "words": _words(place) if present else None,
    }


def _words(place: str) -> list[str] | None:
    """The words that a model can read, if it reads whole words of a small list."""
    from longtake.backbones.registry import locate

    path = locate(place).path_of("tokenizer")
    try:
        model = json.loads(((path if path.is_dir() else path.parent) / "tokenizer.json").read_text())["model"]
    except (OSError, ValueError, KeyError):
        return None
    if model.get("type") != "WordLevel":
        return None
    return sorted(word for word in model["vocab"] if word.isalpha())
