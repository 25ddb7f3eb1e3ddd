"""What one section loses when its history is rounded (+D): its colors after real history, against the truth.

    python benchmarks/rounding.py --clips HELD_OUT --output out/rounding

HELD_OUT is a folder made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md). Each clip's true
latents are the history; the model makes one section after them, with the clip's own caption, by the paper's vanilla and
by a vanilla that also sees the start image. Prints a table and writes numbers.json. Intervals are 95%, by bootstrap
over clips. An error that is made in one section, and that nothing in sight takes back, adds up over a video.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from setting import arguments, decoded, device_name, open_model, plan_of, starts
from torch import Tensor

from longtake.backbones import Backbone
from longtake.backbones.reading import Reading
from longtake.backbones.rollout import make_section
from longtake.evaluation.drift import bootstrap
from longtake.evaluation.metrics import color_distance
from longtake.flow import sigmas
from longtake.packing import History
from longtake.plan import Plan
from longtake.toybox import caption
from longtake.training.clips import open_clips

SCHEDULES = ("td_f16k4f2k2f1k1_g9", "td_f1k1_x_f16k4f2k2f1k1_g9_x_f1k1f2k2f4k4")


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = arguments(__doc__, "out/rounding")
    parser.add_argument("--schedules", nargs="+", default=SCHEDULES)
    parser.add_argument("--sizes", type=int, nargs="*", default=(16, 128, 1024), help="words, beside exact history")
    parser.add_argument("--sections", type=int, default=6, help="of each clip; the last one is made")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    backbone, clips = open_model(options), open_clips(options.clips, options.count)
    numbers = {"device": device_name(options), "clips": len(clips)}
    print(f"{len(clips)} clips; {numbers['device']}", flush=True)
    errors: dict[str, list[float]] = {}
    for first in range(0, len(clips), options.batch):
        chosen = list(range(first, min(first + options.batch, len(clips))))
        truth = starts(backbone, clips, chosen, 1 + 36 * options.sections)
        images = range(36 * (options.sections - 1) + 1, 36 * options.sections + 1)
        words = [caption(clips.truths[c], images[0], images[-1]) for c in chosen]
        real = [video[-36:] for video in decoded(backbone, truth)]
        for schedule in options.schedules:
            plan = plan_of(backbone, options.sections, "vanilla", schedule)
            for size in (0, *options.sizes):
                made = [video[-36:] for video in decoded(backbone, last_section(backbone, plan, truth, words, size))]
                found = errors.setdefault(f"{schedule}{f'+D{size}' if size else ''}", [])
                found += [color_distance(ours, true) for ours, true in zip(made, real, strict=True)]
    print("\n| schedule | distance of colors to the truth | more than with exact history |\n| --- | --- | --- |")
    for name, found in errors.items():
        exact = errors[name.partition("+")[0]]
        differences = [a - b for a, b in zip(found, exact, strict=True)]
        mean, more = (bootstrap([[v] for v in values]) for values in (found, differences))
        numbers[name] = {"distance": asdict(mean), "more": asdict(more), "clips": found}
        print(f"| {name} | {mean} | {more} |")
    (options.output / "numbers.json").write_text(json.dumps(numbers))


def last_section(backbone: Backbone, plan: Plan, truth: Tensor, prompts: list[str], size: int) -> Tensor:
    """The true latents with the last section of a plan as the model makes it, its history rounded to `size` words."""
    section, settings, made = plan.sections[-1], backbone.settings, truth.clone()
    history = History(discretization=backbone.discretization({"*": size} if size else {}))
    history.remember((0,), truth[:, :, :1], exact=True)
    history.remember(range(1, section.frames[0]), truth[:, :, 1 : section.frames[0]])
    shift = settings.shift_at(plan.schedule.section_tokens(*truth.shape[3:]))
    levels, reading = sigmas(settings.steps, shift), Reading.usual(settings)
    made[:, :, section.frames[0] :] = make_section(
        backbone, plan, section, history, prompts, range(len(truth)), levels, "euler", reading
    )
    return made


if __name__ == "__main__":
    main()
