"""Files to pictures and back: images, segments, a growing video, metadata, whole files; and statistics of pictures."""

from longtake.media.film import Film, open_film
from longtake.media.images import fit, load_image, save_image
from longtake.media.video import (
    Segment,
    append_segment,
    join_segments,
    read_comment,
    read_video,
    write_segment,
    write_video,
)
from longtake.media.whole import whole

__all__ = [
    "Film",
    "Segment",
    "append_segment",
    "fit",
    "join_segments",
    "load_image",
    "open_film",
    "read_comment",
    "read_video",
    "save_image",
    "whole",
    "write_segment",
    "write_video",
]
