import numpy as np
import pytest
from PIL import Image
from playing import Played, serving

from longtake.web.settings import Settings


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_backbone_folder):
    """A finished run of two sections of the tiny model."""
    from longtake.pipeline import Request, Run, generate

    folder = tmp_path_factory.mktemp("made")
    Image.fromarray(np.full((64, 96, 3), (200, 30, 30), np.uint8)).save(folder / "start.png")
    request = Request(prompt="a red ball", image=folder / "start.png", model=str(tiny_backbone_folder), seconds=6)
    for _ in generate(request, folder / "video.mp4", folder / "run"):
        pass
    return Run.open(folder / "run")


@pytest.fixture
def settings(tmp_path, tiny_backbone_folder):
    return Settings(home=tmp_path / "home", models={"tiny": str(tiny_backbone_folder)})


@pytest.fixture
def server(settings):
    with serving(settings) as served:
        yield served


@pytest.fixture
def worker(server, tiny_run):
    return Played(server, tiny_run)
