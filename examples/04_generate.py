"""A few seconds from an example image and its prompt; writes a contact sheet of the video."""

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from longtake import Request, SectionDone, generate
from longtake.media import read_video

OUTPUT = Path("out/04_generate.png")
EXAMPLES = Path(str(files("longtake"))) / "assets" / "examples"
COLUMNS, ROWS = 6, 3

start = sorted(EXAMPLES.glob("*.png"))[0]
request = Request(image=start, prompt=start.with_suffix(".txt").read_text().strip(), seconds=6, seed=1)
print(request.prompt)

with TemporaryDirectory() as folder:
    video = Path(folder, "video.mp4")
    for event in generate(request, output=video, folder=Path(folder, "run")):
        if isinstance(event, SectionDone):
            print(f"section {event.section.index}: {event.images} images, {event.seconds:.1f} s")
    images = read_video(video)

picked = images[np.linspace(0, len(images) - 1, COLUMNS * ROWS).round().astype(int)]
sheet = np.concatenate([np.concatenate(list(picked[r * COLUMNS : (r + 1) * COLUMNS]), axis=1) for r in range(ROWS)])
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray(sheet).save(OUTPUT)
print(f"wrote {OUTPUT}: {len(images)} images, every {len(images) // (COLUMNS * ROWS)}th of them")
