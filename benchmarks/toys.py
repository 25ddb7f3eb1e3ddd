"""Do toys keep their color and shape? Read by a small network, whose own accuracy stands beside it.

    python benchmarks/toys.py --clips HELD_OUT --output out/toys          measure a model
    python benchmarks/toys.py --clips HELD_OUT --train CLIPS              train the reader first, and keep it

HELD_OUT and CLIPS are folders made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md). The
reader that is here, toys.safetensors, was trained on 1,300 clips with seeds from 1,200,000 on, in minutes on a GPU.

How well the reader reads comes first: of all toys that show on at least 1% of an image of a real clip, in every 36th
image, the share whose color and shape it reads. Then videos start from a clip's first image; the camera is told to
stand still, so that toys stay in view. Those that show on at least 1% of the first image are followed: all of them, or
those that the reader reads rightly there. A toy is kept in a section if one of its color and shape is read in more than
half of the section's images. Of the real clip, as it is and as the codec gives it back, the same is asked; there a toy
counts while it shows on at least 1% of every image of the section. Beside that stands how many kinds a section shows,
to the reader, that are not in the scene.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from setting import arguments, decoded, device_name, open_model, plan_of, starts

from longtake.backbones.pixels import to_pixels
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
from longtake.toybox import Truth, with_command
from longtake.training.clips import Clips, open_clips

Reads = list[frozenset[Kind]]  # what each image of a video shows
READER = Path(__file__).with_name("toys.safetensors")
WINDOW = 9  # images that are encoded together
TAKEN = [0, 4, 8]  # of these; a codec's first image is not like its later ones


@dataclass(frozen=True, slots=True)
class Readings:
    """What the reader reads in videos, and what is true of the scenes that they begin with."""

    truths: tuple[Truth, ...]
    videos: tuple[Reads, ...]
    real: bool  # the truth is of every image, not only of the first


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = arguments(__doc__, "out/toys")
    parser.add_argument("--train", type=Path, help="clips to train the reader on first")
    parser.add_argument("--reader", type=Path, default=READER)
    parser.add_argument("--reader-steps", type=int, default=8000)
    parser.add_argument("--windows", type=int, default=4, help="of each clip that the reader is trained on")
    parser.add_argument("--sections", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--order", default="vanilla")
    parser.add_argument("--camera", default="still", help="what it is told")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    backbone, clips = open_model(options), open_clips(options.clips, options.count)
    if options.train:
        save_reader(trained(backbone, open_clips(options.train), options), options.reader)
    reader = load_reader(options.reader, options.device)
    numbers = {"device": device_name(options), "order": options.order, "clips": len(clips), "seeds": options.seeds}
    found = {**read_real(backbone, reader, clips, options), "made": read_made(backbone, reader, clips, options)}
    for name, readings in found.items():
        if readings.real:
            one = accuracy(readings)
            numbers[f"{name}, all clear toys"] = asdict(one)
            print(f"{name}, all clear toys of every 36th image:\n     {line(one)}", flush=True)
    for name, readings in found.items():
        for which, at_first in (("read in the first image", True), ("all", False)):
            rows = by_section(readings, options.sections, at_first)
            print(f"{name}, toys followed: {which}; by section" + f" (order {options.order})" * (not readings.real))
            for number, one in enumerate(rows, start=1):
                print(f"  {number}  {line(one)}", flush=True)
            numbers[f"{name}, followed: {which}"] = [asdict(one) for one in rows]
    (options.output / f"numbers-{options.order.replace(':', '-')}.json").write_text(json.dumps(numbers, indent=2))


def line(found: Kept) -> str:
    """One row of a table."""
    shares = f"color and shape {found.both:6.1%}   color {found.color:6.1%}   shape {found.shape:6.1%}"
    return f"{shares}   of {found.toys} toys   others seen {found.others:.2f}"


def trained(backbone, clips: Clips, options) -> ToyReader:
    """A reader of these clips; it sees images as they are, and as the codec gives them back, first and later ones."""
    draw = np.random.default_rng(0)
    pictures, targets = list[torch.Tensor](), list[torch.Tensor]()
    for clip in range(len(clips)):
        firsts = draw.integers(0, clips.images - WINDOW + 1, options.windows).tolist()
        images = clips.batch([clip] * len(firsts), firsts, WINDOW)
        with torch.no_grad():
            latents = backbone.codec.encode(to_pixels(images, backbone.device, backbone.dtype))
        for videos in (images.numpy(), np.stack(decoded(backbone, latents))):
            pictures.append(torch.from_numpy(rearrange(videos[:, TAKEN], "b t h w c -> (b t) c h w")))
        numbers = [first + taken for first in firsts for taken in TAKEN]
        true = torch.stack([targets_of(clips.truths[clip], n, clips.height, clips.width) for n in numbers])
        targets += [true.to(torch.int8)] * 2
    torch.manual_seed(0)
    reader, losses = ToyReader().to(backbone.device), []
    seen, true = torch.cat(pictures).to(backbone.device), torch.cat(targets).to(backbone.device)
    for loss in train_reader(reader, seen, true, options.reader_steps):
        losses.append(loss)
        if len(losses) % 200 == 0:
            print(f"reader: step {len(losses)} loss {np.mean(losses[-200:]):.4f}", flush=True)
    return reader.eval()


@torch.no_grad()
def read_real(backbone, reader: ToyReader, clips: Clips, options) -> dict[str, Readings]:
    """What is read of real clips, whose truth is known, and what of that the codec costs."""
    found = {"real": list[Reads](), "real, through the codec": list[Reads]()}
    for clip in range(len(clips)):
        images = clips.batch([clip], [0], 1 + 36 * min(options.sections, (clips.images - 1) // 36))
        latents = backbone.codec.encode(to_pixels(images, backbone.device, backbone.dtype))
        for videos, video in zip(found.values(), (images[0].numpy(), *decoded(backbone, latents)), strict=True):
            videos.append(read_toys(reader, video))
    return {name: Readings(clips.truths, tuple(videos), real=True) for name, videos in found.items()}


def accuracy(readings: Readings) -> Kept:
    """How many of all clear toys the reader reads, in every 36th image of real clips."""
    expected, shown, scenes = list[set[Kind]](), list[Reads](), list[tuple[Kind, ...]]()
    for truth, video in zip(readings.truths, readings.videos, strict=True):
        for number in range(0, len(video), 36):
            expected.append(clear(truth, slice(number, number + 1)))
            shown.append([video[number]])
            scenes.append(kinds_of(truth))
    return kept(expected, shown, scenes)


def clear(truth: Truth, images: slice) -> set[Kind]:
    """The kinds of toys that can be seen well in all these images."""
    seen = (truth.visibility[images] >= CLEAR).all(0)
    return {kind for kind, yes in zip(kinds_of(truth), seen, strict=True) if yes}


def by_section(readings: Readings, sections: int, at_first: bool) -> list[Kept]:
    """What each section keeps of the clear toys of the first image, `at_first` only of those that are read there.

    Of real videos a toy counts only while the truth shows it.
    """
    scenes, table = [kinds_of(truth) for truth in readings.truths], []
    for k in range(sections):
        own = slice(1 + 36 * k, 37 + 36 * k)
        expected = []
        for truth, video in zip(readings.truths, readings.videos, strict=True):
            followed = clear(truth, slice(0, 1))
            if readings.real:
                followed &= clear(truth, own)
            expected.append(followed & video[0] if at_first else followed)
        table.append(kept(expected, [video[own] for video in readings.videos], scenes))
    return table


@torch.no_grad()
def read_made(backbone, reader: ToyReader, clips: Clips, options) -> Readings:
    """What is read of videos that the model makes from the first images of clips."""
    plan = plan_of(backbone, options.sections, options.order)
    jobs = [(seed, clip) for seed in range(options.seeds) for clip in range(len(clips))]
    truths, videos = [], []
    for first in range(0, len(jobs), options.batch):
        chosen = jobs[first : first + options.batch]
        picked = [clip for _, clip in chosen]
        prompts = [[with_command(clips.truths[clip], options.camera)] * options.sections for clip in picked]
        seeds = [1000 * seed + clip for seed, clip in chosen]
        latents = roll_out(backbone, plan, starts(backbone, clips, picked), prompts, seeds, options.steps)
        videos += [read_toys(reader, video) for video in decoded(backbone, latents)]
        truths += [clips.truths[clip] for clip in picked]
    return Readings(tuple(truths), tuple(videos), real=False)


if __name__ == "__main__":
    main()
