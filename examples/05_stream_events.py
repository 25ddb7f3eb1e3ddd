"""Watching a section come out of noise, step by step; then the work is stopped by closing the generator."""

from contextlib import closing
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from longtake import Planned, Request, SectionDone, Step, generate, load_backbone

OUTPUT = Path("out/05_stream_events.png")
EXAMPLES = Path(str(files("longtake"))) / "assets" / "examples"
SHOWN = (0, 4, 8)  # frames of the section

backbone = load_backbone("embedded")
start = sorted(EXAMPLES.glob("*.png"))[1]
request = Request(image=start, prompt=start.with_suffix(".txt").read_text().strip(), seconds=60, seed=3)


def picture(latents: torch.Tensor) -> np.ndarray:
    """Some frames of a section, one below the other, each decoded as if it were a still."""
    stills = torch.cat([backbone.codec.decode(latents[:, :, frame : frame + 1]) for frame in SHOWN], dim=3)
    return ((stills[0, :, 0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()


columns = []
with TemporaryDirectory() as folder:
    events = generate(request, output=Path(folder, "video.mp4"), folder=Path(folder, "run"), backbone=backbone)
    with closing(events):
        for event in events:
            match event:
                case Planned(plan=plan):
                    print(f"{len(plan.sections)} sections of {len(plan.sections[0].frames)} frames are planned")
                case Step(step=step, latents=latents):
                    print(f"step {step}: deviation {latents.std():.2f}")
                    columns.append(picture(latents))
                case SectionDone(section=section):
                    print(f"section {section.index} is done; that is enough")
                    break

OUTPUT.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray(np.concatenate(columns, axis=1)).save(OUTPUT)
print(f"wrote {OUTPUT}: from noise on the left to frames {', '.join(map(str, SHOWN))} on the right")
