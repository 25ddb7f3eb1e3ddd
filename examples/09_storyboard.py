"""A storyboard: the camera goes left, then right, and the video ends where it starts; a row of pictures a section."""

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

from longtake import Request, generate, preflight, read_storyboard
from longtake.media import read_video

OUTPUT = Path("out/09_storyboard.png")
EXAMPLES = Path(str(files("longtake"))) / "assets" / "examples"
COLUMNS, LINE = 7, 14

board = read_storyboard(
    """
    # the words of each line hold until the next one begins
    0s image=01.png: a big purple egg and a red cone on a purple floor, the camera orbits left
    5.5s: a big purple egg and a red cone on a purple floor, the camera orbits right
    loop
    """,
    folder=EXAMPLES,
)
request = Request.model_validate({"storyboard": board, "seconds": 12, "steps": 6})

with TemporaryDirectory() as folder:
    video, run = Path(folder, "video.mp4"), Path(folder, "run")
    script = preflight(request, video, run).script
    for snap in script.snaps:
        print(f"{snap.asked:g} s -> {snap.got:g} s: {snap.cue}")
    for event in generate(request, output=video, folder=run):
        print(type(event).__name__, end=" ", flush=True)
    images = read_video(video)

rows = []
each = (len(images) - 1) // len(script.told)  # the last image of a section stands beside the first of the next
for place, told in enumerate(script.told):
    line = Image.new("RGB", (COLUMNS * images.shape[2], LINE), "white")
    words = f"{script.seconds * place:g} s to {script.seconds * (place + 1):g} s: {told.prompt}"
    ImageDraw.Draw(line).text((4, 1), words, fill="black")
    first = each * place
    picked = images[np.linspace(first, first + each, COLUMNS).round().astype(int)]
    rows += [np.asarray(line), np.concatenate(list(picked), axis=1)]
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray(np.concatenate(rows)).save(OUTPUT)
print(f"\nwrote {OUTPUT}: it starts and ends with one image")
