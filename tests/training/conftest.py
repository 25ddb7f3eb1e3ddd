import pytest
import torch

from longtake.backbones import load_backbone
from longtake.training.cache import Tracks
from longtake.training.config import SectionConfig
from longtake.training.sections import SectionStage


@pytest.fixture
def stage_of(tiny_backbone_folder):
    """A stage on six made-up tracks of five short sections: frames of 4 channels on a grid of 4 x 6."""

    def build(seed=0, **changes) -> SectionStage:
        generator = torch.Generator().manual_seed(seed)
        tracks = Tracks(
            latents=torch.randn(6, 16, 4, 4, 6, generator=generator),
            keys=torch.randn(6, 5, 4, 4, 6, generator=generator),
            lengths=(16,) * 6,
            captions=((("a red ball",),) * 5,) * 6,
        )
        given = {
            "schedules": {"vanilla": "f1k1_x_f4k2f2k1_g3"}, "shares": {"vanilla": 1.0}, "key_share": 0.0, "batch": 4,
            "text_length": 12, "dtype": "float32", "compile": False, "discrete": {"share": 0.0}, "first_share": 0.0,
            "second_share": 0.0, "startless_share": 0.0,
        }  # fmt: skip
        config = SectionConfig.model_validate({**given, **changes})
        backbone = load_backbone(tiny_backbone_folder)
        return SectionStage(config, backbone, tracks, tracks)

    return build
