"""A whole video of the 13 B FramePack, made as the guide says; and what each section costs, first to last.

    python benchmarks/whole_video.py --output out/whole_video
    python benchmarks/whole_video.py --tiny --device cpu                  the same at tiny size, in half a minute
    python benchmarks/whole_video.py --processes 2                        one video on two GPUs, by torchrun
    python benchmarks/whole_video.py --profile streamed-tables --cap 6    on what is left of a device: 6 GiB
    python benchmarks/whole_video.py --kill                               kill -9 in the middle, then resume

The model is one of random weights in a cache of the hub (`random_framepack.py`), written once and kept in --weights:
43 GB and as much room on the disk. It shows no quality, for nothing in it was learned; what is loaded, computed, held
and written is what the released weights would have. The commands are those of docs/guides/framepack.md: doctor, models
--check, generate --dry-run, generate, resume. The last two run in `watched.py`, which says what they hold.

--cap takes the rest of the device away, as another program would: the doctor sees it, and what would need more cannot
be had. PyTorch may not allocate more than that either. Steps are three and not 25, if nothing is said.

A section's seconds are the engine's own: packing, steps, decoding, meter and encoding. Section 3 is the first one with
a whole history. What is decoded comes a section late: the first decodes nothing and the last one twice as much, so that
the last but one is compared with the third. Prints a table, writes numbers.json, and lines.jsonl on the way; the exit
code is 1 where the video is not what was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import psutil
import torch
from random_framepack import LAYERS, MODEL, save_random

import longtake

PROMPT = "A red ball rolls left and the camera turns."
IMAGE = Path(longtake.__file__).parent / "assets" / "examples" / "04.png"
SIDES = {False: (640, 608), True: (32, 48)}  # pixels: height, width; the second is tiny
SECONDS = {False: 60.0, True: 6.0}
FIRST = 3  # the section, from 1, that a late one is compared with
GIB = 2**30
COLUMNS = 160  # of a line of JSON that are shown


def main() -> None:
    """Makes the model and the video, looks at it, prints and writes what it took."""
    options = asked()
    options.output.mkdir(parents=True, exist_ok=True)
    home, began = options.weights or options.output / ("weights-tiny" if options.tiny else "weights"), time.time()
    save_random(home, torch.device(options.device), options.tiny, options.text_layers)
    numbers: dict[str, Any] = {"device": device_name(options), "steps": options.steps, "sides": SIDES[options.tiny]}
    numbers["weights"] = {"seconds": time.time() - began, "bytes": sum(f.stat().st_size for f in home.rglob("*.saf*"))}
    print(f"weights in {home}: {numbers['weights']['bytes'] / 1e9:.1f} GB, {numbers['weights']['seconds']:.0f} s")
    os.environ |= {"HF_HUB_CACHE": str(home), "HF_HUB_OFFLINE": "1"}
    taken = take_away(options)
    numbers |= made(options)
    del taken
    (options.output / "numbers.json").write_text(json.dumps(numbers))
    report(numbers)
    sys.exit(0 if numbers["whole"] else 1)


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("out/whole_video"))
    parser.add_argument("--weights", type=Path, help="the cache with the random model; made where it is not there")
    parser.add_argument("--text-layers", type=int, default=LAYERS, help="of Llama: fewer are written sooner")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--profile", default="auto")
    parser.add_argument("--cap", type=float, default=0.0, help="GiB of the device; 0: all that is free")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    if options.cap and options.device == "cpu":
        parser.error("--cap is for a GPU")
    options.seconds = options.seconds or SECONDS[options.tiny]
    return options


def device_name(options: argparse.Namespace) -> str:
    return torch.cuda.get_device_name() if options.device == "cuda" else "cpu"


def take_away(options: argparse.Namespace) -> list[torch.Tensor]:
    """What leaves --cap of each device to others, as long as it is held."""
    if options.device == "cuda":
        torch.cuda.empty_cache()
    if not options.cap:
        return []
    cap, devices = int(options.cap * GIB), [torch.device("cuda", rank) for rank in range(options.processes)]
    return [
        torch.empty(max(0, torch.cuda.mem_get_info(device)[0] - cap), dtype=torch.uint8, device=device)
        for device in devices
    ]


def made(options: argparse.Namespace) -> dict[str, Any]:
    """The commands one after the other, and what came of them."""
    (height, width), run, video = SIDES[options.tiny], options.output / "video.run", options.output / "video.mp4"
    machine = ["--profile", options.profile, "--device", options.device]
    size = ["--height", str(height), "--width", str(width), "--steps", str(options.steps)]
    doctor = ["doctor", "--model", MODEL, *size, *machine, "--folder", str(options.output)]
    call(doctor)
    call(["models", MODEL, "--check"])
    generate = ["generate", "--model", MODEL, "--image", str(IMAGE), "--prompt", PROMPT, *size, *machine]
    generate += ["--seconds", f"{options.seconds:g}", "--output", str(video)]
    if call([*generate, "--dry-run"]):
        sys.exit("the video was refused: nothing is made")
    first = watch([*generate, "--json"], options, kill=options.kill)
    finished = stamps(run)
    second = watch(["resume", str(run), *machine, "--json"], options)
    (planned,), (resumed,) = said(first, "planned"), said(second, "planned")
    rows = {row["section"]: row for row in said(second, "section")} | {r["section"]: r for r in said(first, "section")}
    kept = finished.items() <= stamps(run).items() and resumed["finished"] == len(finished)
    found = looked_at(video)
    return {
        "computed": computed(doctor),
        "remarks": planned["remarks"],
        "ready": planned | {"seconds": planned["at"] - first[0]["at"]},
        "until first section": said(first, "section")[0]["at"] - first[0]["at"],
        "seconds": first[-1]["at"] - first[0]["at"] + (second[-1]["at"] - second[0]["at"] if options.kill else 0),
        "rows": [rows[section] for section in sorted(rows)],
        "left": [*said(first, "left"), *said(second, "left")],
        "killed": options.kill,
        "finished before": len(finished),
        "kept": kept,
        "video": found,
        "whole": kept and found["images"] == 36 * planned["sections"] + 1,
    }


def call(arguments: list[str]) -> int:
    """Runs a command of longtake; its exit code."""
    print(f"\n$ longtake {shlex.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", "longtake", *arguments], check=False).returncode


def watch(arguments: list[str], options: argparse.Namespace, kill: bool = False) -> list[dict[str, Any]]:
    """Runs a command of longtake in `watched.py`; what it said, between two lines of ours.

    With `kill` its processes are killed (-9) half a section after half of the video.
    """
    processes, here = str(options.processes), str(Path(__file__).with_name("watched.py"))
    launcher = [] if options.processes == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", processes]
    print(f"\n$ longtake {shlex.join(arguments)}", flush=True)
    command, lines = [sys.executable, *launcher, here, str(options.cap), *arguments], [{"at": time.time()}]
    with (
        open(options.output / "lines.jsonl", "a") as kept,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout
        middle = 0
        for line in process.stdout:
            print(line if len(line) < COLUMNS else f"{line[:COLUMNS]}...\n", end="", flush=True)
            if not line.startswith("{"):
                continue
            kept.write(line)
            kept.flush()
            row = json.loads(line)
            lines.append(row)
            middle = row["sections"] // 2 if row.get("event") == "planned" else middle
            if kill and row.get("event") == "section" and row["section"] + 1 == middle:
                time.sleep(row["seconds"] / 2)
                for one in (process, *psutil.Process(process.pid).children(recursive=True)):
                    one.kill()  # torchrun's have sessions of their own
    if process.returncode and not kill:
        sys.exit(f"longtake {arguments[0]} ended with {process.returncode}")
    return [*lines, {"at": time.time()}]


def said(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("event") == event]


def stamps(run: Path) -> dict[str, tuple[int, int]]:
    """Which sections are finished, and which file each of them is."""
    stats = {path.name: path.stat() for path in (run / "sections").glob("*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def computed(doctor: list[str]) -> dict[str, Any]:
    """What the doctor computes for the way that it chooses; nothing where none fits."""
    told = subprocess.run([sys.executable, "-m", "longtake", *doctor, "--json"], stdout=subprocess.PIPE, check=False)
    (found,) = json.loads(told.stdout)["models"]
    ways = (way for way in found["ways"] if way["profile"] == found["chosen"] and not any(way["lacking"].values()))
    return next(ways, {})


def looked_at(video: Path) -> dict[str, Any]:
    """The images of a file that can be decoded, and how they are said to be shown."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        images = sum(1 for _ in container.decode(stream))
        shown = {"fps": float(stream.average_rate or 0), "height": stream.height, "width": stream.width}
    return {"images": images, **shown, "bytes": video.stat().st_size}


def report(numbers: dict[str, Any]) -> None:
    """The table and the rest."""
    rows, ready, way, video = (numbers[name] for name in ("rows", "ready", "computed", "video"))
    count = len(rows)
    print(f"\n{numbers['device']}, {numbers['steps']} steps a section; {'; '.join(numbers['remarks'])}\n")
    print("| section | s | device GiB allocated | reserved | host GiB private | mapped |\n" + "| --- " * 6 + "|")
    print(f"| before the first | {ready['seconds']:.1f} | {cells(ready)} |")
    shown = {0, 1, 2, count // 2, *range(count - 3, count)}
    for row in (row for place, row in enumerate(rows) if place in shown):
        print(f"| {row['section'] + 1} | {row['seconds']:.2f} | {cells(row)} |")
    if count > FIRST + 1:
        third, late = rows[FIRST - 1], rows[-2]
        print(f"\nsection {count - 1} takes {late['seconds'] / third['seconds']:.3f} of the seconds of section {FIRST}")
    print(f"first section after {numbers['until first section']:.1f} s, all after {numbers['seconds']:.1f} s")
    if way:
        memory = ", ".join(f"{name} {way[f'{name}_bytes'] / GIB:.1f}" for name in ("device", "host", "pinned"))
        print(f"the doctor's: {way['profile']}, {memory} GiB, {way['seconds']['section']:.2f} s a section")
    print(f"{video['images']} images, {video['fps']:g} a second, {video['width']} x {video['height']}")
    when = "killed" if numbers["killed"] else "whole"
    kept = "all were kept" if numbers["kept"] else "NOT all were kept"
    print(f"resumed after it was {when}: of {numbers['finished before']} finished sections {kept}")
    print("the video is whole" if numbers["whole"] else "the video is NOT whole")


def cells(row: dict[str, Any]) -> str:
    return " | ".join(f"{row.get(name, 0) / GIB:.2f}" for name in ("allocated", "reserved", "private", "mapped"))


if __name__ == "__main__":
    main()
