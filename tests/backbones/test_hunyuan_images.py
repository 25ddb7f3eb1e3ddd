import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from PIL import Image
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from longtake.backbones.hunyuan.images import ImageEncoder

SIDE = 28  # pixels that the tower sees; 16 patches of 7 x 7


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=7
    )
    siglip = SiglipVisionModel(config).eval()
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return ImageEncoder(siglip, processor)


@pytest.fixture(scope="module")
def unscaled(encoder):
    """The same tower behind a processor that does not resize."""
    processor = SiglipImageProcessorPil(do_resize=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return ImageEncoder(encoder.siglip, processor)


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def theirs(encoder, image):
    pipeline = HunyuanVideoFramepackPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=None,
        vae=None,
        scheduler=None,
        text_encoder_2=None,
        tokenizer_2=None,
        image_encoder=encoder.siglip,
        feature_extractor=encoder.processor,
    )
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        return pipeline.encode_image(pixels, device=torch.device("cpu"), dtype=torch.float32)


def test_tokens_are_those_of_the_pipeline_of_diffusers(unscaled):
    """Without resizing, for which the pipeline rounds its picture down to whole numbers, up to 1 of 255 too dark."""
    image = picture(SIDE, SIDE)
    tokens = unscaled.encode(image)
    assert tokens.shape == (1, 16, 16)
    assert tokens.std() > 0.1
    torch.testing.assert_close(tokens, theirs(unscaled, image), atol=1e-5, rtol=1e-5)


def test_a_larger_picture_is_scaled_on_whole_numbers_as_pillow_does(encoder, unscaled):
    image = picture(64, 48)
    scaled = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    tokens = encoder.encode(image)
    torch.testing.assert_close(tokens, unscaled.encode(scaled), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tokens, encoder.encode(image[::-1].copy()), atol=1e-2)


def test_half_precision_gives_half_precision(encoder):
    half = ImageEncoder(SiglipVisionModel(encoder.siglip.config).bfloat16().eval(), encoder.processor)
    assert half.encode(picture(SIDE, SIDE)).dtype == torch.bfloat16


def test_tokens_carry_no_gradient(encoder):
    assert not encoder.encode(picture(SIDE, SIDE)).requires_grad
