from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from longtake.backbones import load_backbone
from longtake.pipeline import Request, generate

ORDERS = ("vanilla", "inverted", "planned:2")


@pytest.fixture(scope="session")
def backbone(tiny_backbone_folder):
    return load_backbone(tiny_backbone_folder)


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    """A start image that is not of the model's size."""
    path = tmp_path_factory.mktemp("picture") / "start.png"
    y, x = np.mgrid[:40, :70]
    Image.fromarray(np.stack([3 * x, 5 * y, 255 - x - y], -1).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def asked(picture, tiny_backbone_folder):
    """A request for four sections of two steps, with changes."""

    def ask(**changes) -> Request:
        return Request.model_validate(
            {"image": picture, "prompt": "a red ball", "model": str(tiny_backbone_folder), "seconds": 12, **changes}
        )

    return ask


def contents_of(folder: Path) -> dict[str, bytes]:
    """The latents, segments and meters of a run, and its growing video."""
    patterns = ("s*/*", "meters/*", "start.safetensors", "video.mp4")
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def contents():
    """What a run folder holds: names and bytes of all latents, segments and meters, and of the growing video."""
    return contents_of


@pytest.fixture(scope="session", params=ORDERS)
def undisturbed(request, asked, backbone, tmp_path_factory):
    """A run that nothing disturbed, in several orders: its request, events, files and video."""
    folder = tmp_path_factory.mktemp(f"undisturbed-{request.param}")
    wanted = asked(order=request.param)
    events = list(generate(wanted, folder / "video.mp4", folder / "run", backbone))
    return SimpleNamespace(
        request=wanted,
        events=events,
        folder=folder / "run",
        contents=contents_of(folder / "run"),
        video=(folder / "video.mp4").read_bytes(),
    )
