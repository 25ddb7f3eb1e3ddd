"""Every command of the page on FramePack, by the names that stand there, with a tiny model in the hub's cache."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from longtake.backbones import MODELS
from longtake.cli import main
from longtake.media import read_video

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "framepack.md"
SMALL = ["--height", "32", "--width", "48", "--steps", "1"]  # so that it takes seconds
LENGTH = {"60": "2.4", "5": "1.2"}  # two sections, and one


def commands():
    """The lines of the page that a shell is given, without what downloads and what torchrun starts."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("longtake") and "--fetch" not in line]


@pytest.fixture
def here(tmp_path, monkeypatch, cache_in_hub, framepack_folder):
    """A folder with a start image, and a cache that has all parts of FramePack where its publishers have them."""
    home = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.chdir(tmp_path)
    for part in MODELS["framepack-i2v"].parts:
        cache_in_hub(home, part.repo, framepack_folder / part.name, part.folder)
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(picture).save("start.png")
    return tmp_path


def test_the_page_can_be_followed_to_its_end(here, capfd):
    said = commands()
    assert [line.split()[1] for line in said] == [
        "doctor", "doctor", "models", "models", "generate", "generate", "generate", "resume", "resume"
    ]  # fmt: skip
    for line in said:
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "generate":
            at = words.index("--seconds") + 1
            words[at] = LENGTH[words[at]]
            words += SMALL
        if "--from-section" in words:  # of the minute's 50
            words[words.index("--from-section") + 1] = "1"
        code = main([*words, *(["--device", "cpu"] if words[0] != "models" else [])])
        wanted = (0, 1) if words[0] == "doctor" else (0,)  # what 13 billion parameters need is not everywhere
        assert code in wanted, (line, capfd.readouterr().err)
    assert len(read_video(here / "dance.mp4")) == 73
    assert len(read_video(here / "try.mp4")) == 37
    seeds = json.loads((here / "dance.run" / "config.json").read_text())["seeds"]
    assert seeds == {"1": 2}
