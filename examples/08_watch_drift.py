"""Drift and motion of a video while it is made, section by section; then the whole run over time as a picture."""

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from longtake import Request, Run, SectionDone, generate
from longtake.pipeline import draw_run_svg

OUTPUT = Path("out/08_watch_drift.svg")
EXAMPLES = Path(str(files("longtake"))) / "assets" / "examples"

start = sorted(EXAMPLES.glob("*.png"))[0]
prompt = start.with_suffix(".txt").read_text().strip()
request = Request(image=start, prompt=prompt, seconds=24, steps=3, seed=1)

with TemporaryDirectory() as folder:
    run = Path(folder, "toys.run")
    for event in generate(request, output=Path(folder, "toys.mp4"), folder=run):
        if isinstance(event, SectionDone):
            for meter in event.meters:
                print(f"{meter.sharpness:.0%} as sharp as the start, {meter.motion:.2f} pixels an image")
    picture = draw_run_svg(Run.open(run))

OUTPUT.parent.mkdir(parents=True, exist_ok=True)
OUTPUT.write_text(picture, encoding="utf-8")
print(f"wrote {OUTPUT}")
