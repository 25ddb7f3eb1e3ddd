"""Do toys keep their color and shape? Read by a small network, whose own accuracy stands beside it.

    python benchmarks/toys.py --clips HELD_OUT --output out/toys          measure a model
    python benchmarks/toys.py --clips HELD_OUT --train CLIPS              train the reader first, and keep it

HELD_OUT is a folder made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md). The reader that
is here, toys.safetensors, was trained on the clips of

    python -m longtake.toybox --output CLIPS --clips 900 --first-seed 300000 --images 9 --fps 1

Videos start from a clip's first image; the camera is told to stand still, so that toys stay in view. Those that show on
at least 1% of the first image, and are read there rightly, are followed. A toy is kept in a section if one of its color
and shape is read in more than half of the section's images. Of real clips, as the codec gives them back, the same is
asked of the toys that show on at least 1% of all images of a section.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from setting import arguments, device_name, open_model

from longtake.backbones.pixels import to_images, to_pixels
from longtake.backbones.rollout import roll_out
from longtake.evaluation.embedded import sections_of
from longtake.evaluation.toys import (
    CLEAR,
    Kept,
    ToyReader,
    kept,
    kinds_of,
    load_reader,
    read_toys,
    save_reader,
    targets_of,
    train_reader,
)  # fmt: skip
from longtake.plan import make_plan, order_of
from longtake.schedule import parse
from longtake.toybox import with_command
from longtake.training.clips import Clips, open_clips

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
    real = measure_real(backbone, reader, clips)
    numbers |= {"real": {name: asdict(found) for name, found in real.items()}}
    print("real clips, by section:", *(f"\n  {name:<24}{line(found)}" for name, found in real.items()), flush=True)
    made = measure_made(backbone, reader, clips, options)
    numbers |= {"made": [asdict(found) for found in made]}
    print(f"made in the order {options.order}:")
    for number, found in enumerate(made):
        print(f"  section {number + 1:<16}{line(found)}")
    (options.output / f"numbers-{options.order.replace(':', '-')}.json").write_text(json.dumps(numbers, indent=2))


def line(found: Kept) -> str:
    """One row of a table."""
    return f"color and shape {found.both:6.1%}   color {found.color:6.1%}   shape {found.shape:6.1%}   of {found.toys}"


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
def measure_real(backbone, reader: ToyReader, clips: Clips) -> dict[str, Kept]:
    """How well the reader reads real clips whose truth is known, and what of that the codec costs."""
    expected, raw, decoded = [], [], []
    for clip, truth in enumerate(clips.truths):
        images = clips.batch([clip], [0], clips.images)
        video = to_images(backbone.codec.decode(backbone.codec.encode(to_pixels(images, backbone.device))))[0]
        for k, section in enumerate(sections_of(images[0].numpy())):
            clear = (truth.visibility[1 + 36 * k : 37 + 36 * k] >= CLEAR).all(0)
            expected.append({kind for kind, here in zip(kinds_of(truth), clear, strict=True) if here})
            raw.append(read_toys(reader, section))
            decoded.append(read_toys(reader, video[1 + 36 * k : 37 + 36 * k]))
    return {"as they are": kept(expected, raw), "as the codec gives them": kept(expected, decoded)}


@torch.no_grad()
def measure_made(backbone, reader: ToyReader, clips: Clips, options) -> list[Kept]:
    """What is kept, section by section, of the toys of the first image."""
    settings = backbone.settings
    schedule = parse(settings.schedules[order_of(options.order)])
    plan = make_plan(schedule, 1 + schedule.generated * options.sections, options.order, settings.gaps)
    jobs = [(seed, clip) for seed in range(options.seeds) for clip in range(len(clips))]
    expected, sections = [], [[] for _ in range(options.sections)]
    for first in range(0, len(jobs), options.batch):
        chosen = jobs[first : first + options.batch]
        picked = [clip for _, clip in chosen]
        pixels = to_pixels(clips.batch(picked, [0] * len(picked), 1), backbone.device, backbone.dtype)
        prompts = [[with_command(clips.truths[clip], "still")] * options.sections for clip in picked]
        seeds = [1000 * seed + clip for seed, clip in chosen]
        latents = roll_out(backbone, plan, backbone.codec.encode(pixels), prompts, seeds, options.steps)
        for clip, one in zip(picked, latents.split(1), strict=True):
            video, truth = to_images(backbone.codec.decode(one))[0], clips.truths[clip]
            clear = {k for k, share in zip(kinds_of(truth), truth.visibility[0], strict=True) if share >= CLEAR}
            expected.append(clear & read_toys(reader, video[:1])[0])
            for found, section in zip(sections, sections_of(video), strict=True):
                found.append(read_toys(reader, section))
    return [kept(expected, found) for found in sections]


if __name__ == "__main__":
    main()
