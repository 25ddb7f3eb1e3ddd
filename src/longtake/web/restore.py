"""The settings that a video of ours has in it."""

from __future__ import annotations

import json
from typing import Any

from longtake.web.refusal import Refusal
from longtake.web.studio import Studio

__all__ = ["restored"]

ELSEWHERE = {"image", "video", "parts", "loras"}  # files of the machine that made it


def restored(studio: Studio, upload: str) -> dict[str, Any]:
    """What a video was asked to be, and its first image as an upload. It blocks.

    Raises:
        Refusal: it is none of ours.
    """
    from longtake.errors import LongtakeError
    from longtake.media import read_comment, save_image
    from longtake.web.pictures import first_image

    path = studio.uploads.path(upload)
    foreign = Refusal(
        "invalid_request", "this video has no settings of longtake in it; one that longtake made would do", "video"
    )
    try:
        request = json.loads(read_comment(path))
    except (LongtakeError, ValueError):
        raise foreign from None
    if not isinstance(request, dict) or "prompt" not in request or not ELSEWHERE & set(request):
        raise foreign
    image = studio.uploads.blank()
    picture = first_image(path)
    save_image(picture, image)
    height, width = picture.shape[:2]
    about = {"kind": "image", "width": width, "height": height, "images": 1, "seconds": 0.0}
    kept = {key: value for key, value in request.items() if key not in ELSEWHERE and value is not None}
    board = kept.get("storyboard") or {}
    cues = [{k: v for k, v in cue.items() if v is not None and k != "image"} for cue in board.get("cues", ())]
    cues = [cue for cue in cues if set(cue) - {"at", "until"}]
    kept["storyboard"] = {"cues": cues, "loop": bool(board.get("loop"))}
    if kept.get("model") not in studio.settings.models:
        kept.pop("model", None)
    return {"request": kept, "image": studio.uploads.keep(image, about)["id"]}
