"""Do toys keep their color and shape? Read by a small network, whose own accuracy stands beside it.

    python benchmarks/toys.py --clips HELD_OUT --output out/toys          measure a model
    python benchmarks/toys.py --clips HELD_OUT --train CLIPS              train the reader first, and keep it

HELD_OUT is a folder made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md). The reader that
is here, toys.safetensors, was trained on the clips of

    python -m longtake.toybox --output CLIPS --clips 900 --first-seed 300000 --images 9 --fps 1

Videos start from a clip's first image; the camera is told to stand still, so that toys stay in view. Those that show on
at least 1% of the first image, and are read there rightly, are followed. A toy is kept in a section if one of its color
and shape is read in more than half of the section's images. Of the real clip, as it is and as the codec gives it back,
the same is asked; there a toy counts while it shows on at least 1% of every image of the section. Beside that stands
how many kinds a section shows, to the reader, that are not in the scene.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from setting import arguments, device_name, open_model

from longtake.backbones.pixels import to_images, to_pixels
from longtake.backbones.rollout import roll_out
from longtake.evaluation.toys import (
    CLEAR,
    Kept,
    Kind,
    ToyReader,
    kept,
    kinds_of,
    load_reader,
    read_toys,
    save_reader,
    targets_of,
    train_reader,
)
from longtake.plan import make_plan, order_of
from longtake.schedule import parse
from longtake.toybox import Truth, with_command
from longtake.training.clips import Clips, open_clips

Reads = list[frozenset[Kind]]  # what each image of a video shows
READER = Path(__file__).with_name("toys.safetensors")


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = arguments(__doc__, "out/toys")
    parser.add_argument("--train", type=Path, help="clips to train the reader on first")
    parser.add_argument("--reader", type=Path, default=READER)
    parser.add_argument("--reader-steps", type=int, default=3000)
    parser.add_argument("--sections", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--order", default="vanilla")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    backbone, clips = open_model(options), open_clips(options.clips, options.count)
    if options.train:
        save_reader(trained(backbone, open_clips(options.train), options), options.reader)
    reader = load_reader(options.reader, options.device)
    numbers = {"device": device_name(options), "order": options.order, "clips": len(clips), "seeds": options.seeds}
    rows = {**measure_real(backbone, reader, clips, options), "made": measure_made(backbone, reader, clips, options)}
    for name, found in rows.items():
        print(f"{name}, by section (order {options.order}):" if name == "made" else f"{name}, by section:")
        for number, one in enumerate(found, start=1):
            print(f"  {number}  {line(one)}", flush=True)
    numbers |= {name: [asdict(one) for one in found] for name, found in rows.items()}
    (options.output / f"numbers-{options.order.replace(':', '-')}.json").write_text(json.dumps(numbers, indent=2))


def line(found: Kept) -> str:
    """One row of a table."""
    shares = f"color and shape {found.both:6.1%}   color {found.color:6.1%}   shape {found.shape:6.1%}"
    return f"{shares}   of {found.toys} toys   others seen {found.others:.2f}"


def trained(backbone, clips: Clips, options) -> ToyReader:
    """A reader of these clips; it sees each image as it is, and as the codec gives it back."""
    device, pictures, targets = torch.device(options.device), [], []
    for clip in range(len(clips)):
        pixels = to_pixels(clips.batch([clip], [0], clips.images), device, backbone.dtype)[0].transpose(0, 1)
        with torch.no_grad():
            decoded = backbone.codec.decode(backbone.codec.encode(pixels[:, :, None]))[:, :, 0]
        true = [targets_of(clips.truths[clip], image, clips.height, clips.width) for image in range(clips.images)]
        pictures += [pixels.half(), decoded.half()]
        targets += [torch.stack(true)] * 2
    torch.manual_seed(0)
    reader, losses = ToyReader().to(device), []
    for loss in train_reader(reader, torch.cat(pictures), torch.cat(targets).to(device), options.reader_steps):
        losses.append(loss)
        if len(losses) % 100 == 0:
            print(f"reader: step {len(losses)} loss {np.mean(losses[-100:]):.4f}", flush=True)
    return reader.eval()


@torch.no_grad()
def measure_real(backbone, reader: ToyReader, clips: Clips, options) -> dict[str, list[Kept]]:
    """What is read of real clips, whose truth is known, section by section, and what of that the codec costs."""
    found = {"real": [], "real, through the codec": []}
    for clip in range(len(clips)):
        images = clips.batch([clip], [0], 1 + 36 * min(options.sections, (clips.images - 1) // 36))
        decoded = to_images(backbone.codec.decode(backbone.codec.encode(to_pixels(images, backbone.device))))[0]
        for videos, video in zip(found.values(), (images[0].numpy(), decoded), strict=True):
            videos.append(read_toys(reader, video))
    return {name: by_section(clips.truths, videos, options.sections, True) for name, videos in found.items()}


def by_section(truths: Sequence[Truth], videos: Sequence[Reads], sections: int, real: bool) -> list[Kept]:
    """What each section keeps of the toys of the first image; of real videos only while the truth shows them."""
    table = []
    for k in range(sections):
        own = slice(1 + 36 * k, 37 + 36 * k)
        expected = []
        for truth, read in zip(truths, videos, strict=True):
            clear = truth.visibility[0] >= CLEAR
            if real:
                clear &= (truth.visibility[own] >= CLEAR).all(0)
            expected.append({kind for kind, yes in zip(kinds_of(truth), clear, strict=True) if yes} & read[0])
        table.append(kept(expected, [read[own] for read in videos], [kinds_of(truth) for truth in truths]))
    return table


@torch.no_grad()
def measure_made(backbone, reader: ToyReader, clips: Clips, options) -> list[Kept]:
    """What is kept, section by section, of the toys of the first image."""
    settings = backbone.settings
    schedule = parse(settings.schedules[order_of(options.order)])
    plan = make_plan(schedule, 1 + schedule.generated * options.sections, options.order, settings.gaps)
    jobs = [(seed, clip) for seed in range(options.seeds) for clip in range(len(clips))]
    truths, videos = [], []
    for first in range(0, len(jobs), options.batch):
        chosen = jobs[first : first + options.batch]
        picked = [clip for _, clip in chosen]
        pixels = to_pixels(clips.batch(picked, [0] * len(picked), 1), backbone.device, backbone.dtype)
        prompts = [[with_command(clips.truths[clip], "still")] * options.sections for clip in picked]
        seeds = [1000 * seed + clip for seed, clip in chosen]
        latents = roll_out(backbone, plan, backbone.codec.encode(pixels), prompts, seeds, options.steps)
        videos += [read_toys(reader, to_images(backbone.codec.decode(one))[0]) for one in latents.split(1)]
        truths += [clips.truths[clip] for clip in picked]
    return by_section(truths, videos, options.sections, False)


if __name__ == "__main__":
    main()
