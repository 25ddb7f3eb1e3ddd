"""A world that is known exactly: small arenas with toys, simulated by MuJoCo, filmed by programmed cameras.

    difficulty   what may be there and what may happen: `kind`, `wide`             data
    scenes       what stands where, in which colors; world: the same as MJCF
    shapes       meshes with smooth edges
    camera       what the camera is told, and where it is because of that
    physics      toys are pushed, dropped, spun, thrown                            MuJoCo (extra `toybox`)
    render       many pictures at a time, and who is seen in them                  MuJoCo
    truth        what is true of a clip, beside its pixels
    captions     truth -> words for any window of a clip
    clip, clips  a seed -> a clip; many seeds -> files, by many processes

MuJoCo is imported when something is simulated or rendered, not before. Nothing here needs torch.
"""

from longtake.toybox.captions import VOCABULARY, caption, dominant_command, mirrored, window_commands, with_command
from longtake.toybox.clip import Clip, Studio, render_clip
from longtake.toybox.clips import write_clips
from longtake.toybox.difficulty import DIFFICULTIES, Difficulty
from longtake.toybox.truth import Truth, read_truths

__all__ = [
    "DIFFICULTIES",
    "VOCABULARY",
    "Clip",
    "Difficulty",
    "Studio",
    "Truth",
    "caption",
    "dominant_command",
    "mirrored",
    "read_truths",
    "render_clip",
    "window_commands",
    "with_command",
    "write_clips",
]
