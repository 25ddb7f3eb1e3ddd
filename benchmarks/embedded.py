"""The quality bars of the embedded model: on held-out toybox clips, with every number's motion beside it.

    python benchmarks/embedded.py --clips HELD_OUT --train-clips TRAIN --output out/embedded

HELD_OUT and TRAIN are folders made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md).
Prints a table, writes numbers.json and contact sheets. Both sides of every comparison are measured in this one run.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from setting import arguments, decoded, device_name, open_model, plan_of, starts

from longtake.backbones.pixels import to_images, to_pixels
from longtake.backbones.rollout import roll_out
from longtake.evaluation.embedded import camera_agreement, section_numbers, sections_of
from longtake.evaluation.metrics import color_distance
from longtake.toybox import dominant_command, with_command
from longtake.training.cache import Tracks, encode_tracks
from longtake.training.clips import Clips, open_clips
from longtake.training.codec import psnr
from longtake.training.config import PRESETS, SectionConfig, read_config
from longtake.training.sections import SectionStage

COMMANDS = ("left", "right", "still")


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = arguments(__doc__, "out/embedded", "clips of each side; the losses need 18")
    parser.add_argument("--train-clips", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="config.toml of the training; the preset otherwise")
    parser.add_argument("--sections", type=int, default=10)
    parser.add_argument("--order", default="vanilla")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    backbone = open_model(options)
    dtype = backbone.dtype
    held_out, training = open_clips(options.clips, options.count), open_clips(options.train_clips, options.count)
    numbers = {"device": device_name(options)}
    began = time.monotonic()
    numbers["codec"], real = measure_codec(backbone, held_out, options.device, dtype)
    config = PRESETS["pack/embedded"] if options.config is None else read_config(options.config)
    numbers["loss"] = measure_loss(backbone, config, training, held_out, options.device, dtype)
    numbers["rollout"] = measure_rollout(backbone, held_out, real, options)
    numbers["seconds"] = time.monotonic() - began
    (options.output / "numbers.json").write_text(json.dumps(numbers, indent=2))
    print(json.dumps(numbers, indent=2))


@torch.no_grad()
def measure_codec(backbone, clips: Clips, device: str, dtype: torch.dtype):
    """PSNR of whole clips, and the clips as the codec gives them back: the truth that roll-outs are compared with."""
    values, videos = [], []
    for clip in range(len(clips)):
        pixels = to_pixels(clips.batch([clip], [0], clips.images), torch.device(device), dtype)
        images = backbone.codec.decode(backbone.codec.encode(pixels))
        values.append(psnr(images, pixels).item())
        videos.append(to_images(images)[0])
    return {"psnr_mean": float(np.mean(values)), "psnr_worst": float(np.min(values)), "clips": len(clips)}, videos


def measure_loss(backbone, config: SectionConfig, training: Clips, held_out: Clips, device: str, dtype: torch.dtype):
    """The same loss, weights and noise levels on clips that were trained on and on clips that were not.

    Clips differ more than models do, so each side has its standard error, from groups of nine clips: one of each noise
    level.
    """
    config = config.model_copy(update={"compile": False, "dtype": str(dtype).removeprefix("torch.")})
    sides = [
        encode_tracks(backbone.codec, c, config.starts[:1], 9, torch.device(device), dtype)
        for c in (training, held_out)
    ]
    stage = SectionStage(config, backbone, *sides)
    found = {}
    for name, tracks, numbers in zip(
        ("training", "held_out"), sides, (stage.numbers, stage.held_out_numbers), strict=True
    ):
        groups = []
        for first in range(0, len(tracks.lengths) - 8, 9):
            part = slice(first, first + 9)
            group = Tracks(tracks.latents[part], tracks.keys[part], tracks.lengths[part], tracks.captions[part])
            groups.append(stage.fixed_loss(group, numbers[part], 9))
        found[f"{name}_loss"] = float(np.mean(groups))
        found[f"{name}_standard_error"] = float(np.std(groups, ddof=1) / len(groups) ** 0.5)
    return {**found, "ratio": found["held_out_loss"] / found["training_loss"]}


@torch.no_grad()
def measure_rollout(backbone, clips: Clips, real: list[np.ndarray], options):
    """Ten sections from the first image of each clip, the camera told to go left, right or stand still by turns."""
    plan = plan_of(backbone, options.sections, options.order)
    commands = [COMMANDS[i % len(COMMANDS)] for i in range(len(clips))]
    videos = []
    for first in range(0, len(clips), options.batch):
        chosen = list(range(first, min(first + options.batch, len(clips))))
        prompts = [[with_command(clips.truths[c], commands[c])] * options.sections for c in chosen]
        start = starts(backbone, clips, chosen)
        videos += decoded(backbone, roll_out(backbone, plan, start, prompts, options.seed + first, options.steps))
    real_sections = [sections_of(video) for video in real]
    made_sections = [sections_of(video) for video in videos]
    real_numbers = [[section_numbers(s, sections[0]) for s in sections] for sections in real_sections]
    made_numbers = [
        [section_numbers(s, truth[0]) for s in sections]
        for sections, truth in zip(made_sections, real_sections, strict=True)
    ]
    real_sharpness = float(np.mean([n.sharpness for row in real_numbers for n in row]))
    real_motion = float(np.mean([n.motion for row in real_numbers for n in row]))
    # Two real clips of one scene: the sections of a clip, pair by pair.
    pairs = [color_distance(a, b) for s in real_sections for i, a in enumerate(s) for b in s[i + 1 :]]
    table = []
    for k in range(options.sections):
        column = [row[k] for row in made_numbers]
        table.append(
            {
                "section": k + 1,
                "sharpness_ratio": float(np.mean([n.sharpness for n in column]) / real_sharpness),
                "color_distance": float(np.mean([n.color_distance for n in column])),
                "motion": float(np.mean([n.motion for n in column])),
            }
        )
    flows = [n.background for row in made_numbers for n in row]
    told = [c for c in commands for _ in range(options.sections)]
    real_flows, real_told = [], []
    for clip, row in enumerate(real_numbers):
        for k, n in enumerate(row):
            real_flows.append(n.background)
            real_told.append(dominant_command(clips.truths[clip], 36 * k + 1, 36 * k + 36))
    for name, group in (("real", real), ("made", videos)):
        contact_sheet(options.output / f"{name}-{options.order}.png", group[:12], options.sections)
    return {
        "order": options.order,
        "steps": options.steps or backbone.settings.steps,
        "real_sharpness": real_sharpness,
        "real_motion": real_motion,
        "real_color_distance": float(np.mean(pairs)),
        "sections": table,
        "camera": camera_agreement(flows, told),
        "camera_on_real_clips": camera_agreement(real_flows, real_told),
    }


def contact_sheet(path: Path, videos: list[np.ndarray], sections: int) -> None:
    """One row a video: its first image, then the middle and the last image of each section."""
    rows = []
    for video in videos:
        moments = [0] + [1 + 36 * k + o for k in range(min(sections, (len(video) - 1) // 36)) for o in (17, 35)]
        rows.append(np.concatenate([video[m] for m in moments], axis=1))
    width = max(r.shape[1] for r in rows)
    sheet = np.concatenate([np.pad(r, ((0, 2), (0, width - r.shape[1]), (0, 0))) for r in rows])
    Image.fromarray(sheet).save(path)


if __name__ == "__main__":
    main()
