"""Orders and discretized history against drift: 32 held-out scenes, 30 sections, 3 seeds, the same weights.

    python benchmarks/orders.py --clips HELD_OUT --output out/orders

HELD_OUT is a folder made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md). Prints tables,
writes numbers.json and a contact sheet of each arm. Every arm starts from the same images with the same prompts and
seeds, and is measured in this one run. Intervals are 95%, by bootstrap over scenes. A camera that goes around shows
other colors at the end than at the start; one that stands still does not, so color is also compared by what it is told.

The embedded model's vanilla sees the start image in every section. The paper's does not: `--schedule
td_f16k4f2k2f1k1_g9` makes that the vanilla of the comparison, which is fair for weights that were trained for it, as
the preset pack/embedded does.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
from PIL import Image
from setting import arguments, decoded, device_name, open_model, plan_of, starts

from longtake.backbones.rollout import roll_out
from longtake.evaluation.drift import Drift, bootstrap, drift_of, paired_at_equal_motion
from longtake.evaluation.embedded import camera_agreement
from longtake.plan import find_order, make_plan, order_of
from longtake.schedule import parse
from longtake.toybox import with_command
from longtake.training.clips import Clips, open_clips

COMMANDS = ("left", "right", "still")
ORDERS = ("vanilla", "inverted", "anti_drifting", "planned:9,3", "planned:10")
SIZES = (1, 16, 64, 128, 256, 1024)


@dataclass(frozen=True, slots=True)
class Arm:
    """An order, the words that its history is rounded to (0: it is not), and a schedule that is not the model's own."""

    order: str
    words: int = 0
    schedule: str = ""

    def __str__(self) -> str:
        name = f"{self.order} {self.schedule}".rstrip()
        return f"{name}+D{self.words}" if self.words else name


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = arguments(__doc__, "out/orders")
    parser.add_argument("--sections", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--orders", nargs="*", default=ORDERS, help="beside vanilla")
    parser.add_argument("--schedule", default="", help="of the order vanilla, instead of the model's own")
    parser.add_argument("--schedules", nargs="*", default=(), help="of more arms in the order vanilla")
    parser.add_argument("--words", type=int, default=128, help="of the codebook that orders are combined with; 0: none")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="of the codebooks that are swept")
    parser.add_argument("--camera", nargs="*", choices=COMMANDS, default=COMMANDS, help="what it is told, by turns")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=96)
    options = parser.parse_args()
    backbone = open_model(options)
    clips = open_clips(options.clips, options.count)
    vanilla = Arm("vanilla", schedule=options.schedule)
    others = [Arm(order) for order in options.orders if order != "vanilla"]
    others += [Arm("vanilla", schedule=schedule) for schedule in options.schedules]
    arms = [vanilla, *others, *(replace(vanilla, words=size) for size in options.sizes)]
    arms += [replace(arm, words=options.words) for arm in others if options.words]
    device = device_name(options)
    steps = options.steps or backbone.settings.steps
    print(f"{len(clips)} scenes, {options.sections} sections, {options.seeds} seeds, {steps} steps; {device}")
    numbers = {"device": device, "steps": steps, "bounds": bounds(backbone)}
    numbers["storyboard"] = measure_storyboard(backbone, clips, options)
    print("storyboard: as told in the section of the change:", numbers["storyboard"], flush=True)
    drifts: dict[str, list[list[Drift]]] = {}

    def finish(arm: Arm, found: list[list[Future[Drift]]]) -> None:
        drifts[str(arm)] = [[drift.result() for drift in seeds] for seeds in found]
        print(row(str(arm), drifts), flush=True)
        numbers["arms"] = {name: table(name, drifts, str(vanilla), options.camera) for name in drifts}
        numbers["videos"] = {name: [[asdict(d) for d in seeds] for seeds in found] for name, found in drifts.items()}
        (options.output / "numbers.json").write_text(json.dumps(numbers))

    with ThreadPoolExecutor() as pool:  # an arm is made while the one before it is measured
        begun: list[tuple[Arm, list[list[Future[Drift]]]]] = []
        for arm in arms:
            begun.append((arm, measure(backbone, clips, arm, options, pool)))
            if len(begun) > 1:
                finish(*begun.pop(0))
        finish(*begun.pop())
    print_tables(numbers)


def measure(backbone, clips: Clips, arm: Arm, options, pool: ThreadPoolExecutor) -> list[list[Future[Drift]]]:
    """The drifts of an arm to come, `[scene][seed]`."""
    began, decoding = time.monotonic(), 0.0
    plan = plan_of(backbone, options.sections, arm.order, arm.schedule)
    rounding = backbone.discretization({"*": arm.words} if arm.words else {})
    commands = [options.camera[i % len(options.camera)] for i in range(len(clips))]
    jobs = [(seed, clip) for seed in range(options.seeds) for clip in range(len(clips))]
    found: list[list[Future[Drift]]] = [[] for _ in range(len(clips))]
    sheet = []
    for first in range(0, len(jobs), options.batch):
        chosen = jobs[first : first + options.batch]
        prompts = [[with_command(clips.truths[c], commands[c])] * options.sections for _, c in chosen]
        start = starts(backbone, clips, [c for _, c in chosen])
        latents = roll_out(
            backbone, plan, start, prompts, [1000 * s + c for s, c in chosen], options.steps, discretization=rounding
        )
        rolled = time.monotonic()
        videos = decoded(backbone, latents)
        decoding += time.monotonic() - rolled
        sheet += [
            video[:: max(1, (len(video) - 1) // 10)] for (s, _), video in zip(chosen, videos, strict=True) if s == 0
        ]
        for (_, clip), video in zip(chosen, videos, strict=True):
            found[clip].append(pool.submit(drift_of, video))
    rows = [np.concatenate(list(video), axis=1) for video in sheet[:12]]
    name = re.sub("[:,+ ]", "-", str(arm))
    Image.fromarray(np.concatenate(rows)).save(options.output / f"{name}.jpg", quality=88)
    print(f"{arm}: made in {time.monotonic() - began:.0f} s, {decoding:.0f} s of it decoding", flush=True)
    return found


def measure_storyboard(backbone, clips: Clips, options) -> dict[str, float]:
    """The share of sections in which the camera does what the prompt says from this section on."""
    sections = 8
    plan = plan_of(backbone, sections, "vanilla")
    draw = np.random.default_rng(0)
    flows, told = [], []
    for seed in range(options.seeds):
        programs = [change_every_other(sections, draw) for _ in range(len(clips))]
        prompts = [[with_command(t, c) for c in program] for t, program in zip(clips.truths, programs, strict=True)]
        start = starts(backbone, clips, range(len(clips)))
        seeds = [5000 + 1000 * seed + c for c in range(len(clips))]
        videos = decoded(backbone, roll_out(backbone, plan, start, prompts, seeds, options.steps))
        for program, drift in zip(programs, measured(videos), strict=True):
            changed = [k for k in range(1, sections) if program[k] != program[k - 1]]
            flows += [drift.background[k] for k in changed]
            told += [program[k] for k in changed]
    return {**camera_agreement(flows, told), "changes": len(told)}


def change_every_other(sections: int, draw: np.random.Generator) -> list[str]:
    """Commands of a video's sections; every second one brings another."""
    program = [str(draw.choice(COMMANDS))]
    for k in range(1, sections):
        others = [c for c in COMMANDS if c != program[-1]]
        program.append(str(draw.choice(others)) if k % 2 == 0 else program[-1])
    return program


def measured(videos: list[np.ndarray]) -> list[Drift]:
    """The drift of each video."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(drift_of, videos))


def bounds(backbone) -> dict[str, dict[str, int]]:
    """Tokens of context that any section of videos of up to 400 sections sees, beside the schedule's own bound."""
    h, w = (side // backbone.codec.spatial_ratio for side in (backbone.settings.height, backbone.settings.width))
    found = {}
    for order in ORDERS:
        schedule = parse(backbone.settings.schedules[order_of(order)])
        assert find_order(order).serves(schedule)
        plans = [make_plan(schedule, 1 + 9 * n, order) for n in (1, 2, 5, 20, 100, 400)]
        most = max(section.context_tokens(h, w) for plan in plans for section in plan.sections)
        found[order] = {"most": most, "bound": schedule.context_tokens(h, w)}
    return found


def table(name: str, drifts: dict[str, list[list[Drift]]], vanilla: str, camera: Sequence[str]) -> dict:
    """The numbers of one arm, also against vanilla, in all and by what the camera was told."""
    found = {m: asdict(bootstrap([[getattr(d, m) for d in seeds] for seeds in drifts[name]])) for m in METRICS}
    for metric in METRICS[:2]:
        pairs = zip(drifts[name], drifts[vanilla], strict=True)
        differences = [[getattr(a, metric) - getattr(b, metric) for a, b in zip(*pair, strict=True)] for pair in pairs]
        found[f"{metric}_against_vanilla"] = asdict(bootstrap(differences))
        told = {command: differences[place :: len(camera)] for place, command in enumerate(camera)}
        found[f"{metric}_by_camera"] = {command: asdict(bootstrap(d)) for command, d in told.items() if d}
        alike = paired_at_equal_motion(drifts[name], drifts[vanilla], metric)
        found[f"{metric}_at_equal_motion"] = alike and {**asdict(alike[0]), "pairs": alike[1]}
    return found


METRICS = ("sharpness", "color", "motion")


def row(name: str, drifts: dict[str, list[list[Drift]]]) -> str:
    """One line of an arm."""
    cells = [str(bootstrap([[getattr(d, m) for d in seeds] for seeds in drifts[name]])) for m in METRICS]
    return f"{name:<22} " + "".join(f"{m} {cell:<26}" for m, cell in zip(METRICS, cells, strict=True))


def print_tables(numbers: dict) -> None:
    """Everything as Markdown."""

    def cell(interval: dict | None) -> str:
        if interval is None:
            return "-"
        pairs = f" ({interval['pairs']})" if "pairs" in interval else ""
        return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]{pairs}"

    heads = ("sharpness", "color", "motion", "sharpness_against_vanilla", "color_against_vanilla",
             "sharpness_at_equal_motion", "color_at_equal_motion")  # fmt: skip
    print("\n| arm | " + " | ".join(head.replace("_", " ") for head in heads) + " |")
    print("| --- |" + " --- |" * len(heads))
    for name, found in numbers["arms"].items():
        print(f"| {name} | " + " | ".join(cell(found[head]) for head in heads) + " |")
    by_camera = {name: found["color_by_camera"] for name, found in numbers["arms"].items()}
    told = list(by_camera[next(iter(by_camera))])
    print("\n| color against vanilla, camera told | " + " | ".join(told) + " |")
    print("| --- |" + " --- |" * len(told))
    for name, found in by_camera.items():
        print(f"| {name} | " + " | ".join(map(cell, found.values())) + " |")
    print("\n| order | most tokens of context | bound |\n| --- | --- | --- |")
    for order, found in numbers["bounds"].items():
        print(f"| {order} | {found['most']} | {found['bound']} |")


if __name__ == "__main__":
    main()
