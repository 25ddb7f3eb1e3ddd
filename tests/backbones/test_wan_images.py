"""Wan's image-to-video network: what it reads beside the noise, and that a known frame in history is a given one."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from longtake.backbones import inspect_model, load_backbone
from longtake.backbones.wan import WanConditioning, known_frames
from longtake.backbones.wan_images import blank_latent
from longtake.errors import ModelError
from longtake.flow import noise
from longtake.packing import History, pack
from longtake.pipeline import Finished, Run, generate
from longtake.pipeline.request import read_request
from longtake.plan import make_plan
from longtake.schedule import parse

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tiny_backbone_folder, tmp_path_factory):
    """A whole image-to-video model at tiny size, as its publisher lays it out: don't write into it."""
    folder = shutil.copytree(tiny_backbone_folder, tmp_path_factory.mktemp("models") / "i2v")
    shutil.rmtree(folder / "transformer")
    (folder / "longtake.json").unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=12, out_channels=4, text_dim=16, freq_dim=16,
            ffn_dim=32, num_layers=2, image_dim=24, added_kv_proj_dim=32,
        )  # fmt: skip
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.2)
        clip = CLIPVisionModel(
            CLIPVisionConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
                             image_size=32, patch_size=16)
        )  # fmt: skip
    transformer.save_pretrained(folder / "transformer")
    clip.save_pretrained(folder / "image_encoder")
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder / "image_processor")
    index = json.loads((folder / "model_index.json").read_text()) | {"_class_name": "WanImageToVideoPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def spoiled(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


@pytest.fixture(scope="module")
def told(folder):
    return load_backbone(folder).prompts.tell(["a red ball"], PICTURE).told["a red ball"]


def refused(folder, match):
    for door in (inspect_model, load_backbone):
        with pytest.raises(ModelError, match=match):
            door(folder)


def test_a_frame_of_history_is_a_frame_that_is_given(folder, told):
    """The section after a start image, packed, is what diffusers' own forward says of both together."""
    backbone = load_backbone(folder)
    start, x = noise((1, 4, 1, 4, 6), seed=0, section=0), noise((1, 4, 9, 4, 6), seed=0, section=1)
    history = History()
    history.remember([0], start)
    section = make_plan(parse("f1k1_g9"), 10).sections[0]
    with torch.no_grad():
        ours = backbone.velocity(x, 0.7, told, pack(section, history, backbone.patchify, backbone.axes))
        given = torch.ones(1, 4, 1, 4, 6), torch.zeros(1, 4, 9, 4, 6)
        blank = told.blank[None, :, None, None, None].expand_as(x)
        whole = torch.cat(
            [torch.cat([start, x], dim=2), torch.cat(given, dim=2), torch.cat([start, blank], dim=2)], dim=1
        )
        (theirs,) = load_transformer(folder)(
            whole, torch.tensor([700.0]), told.text, encoder_hidden_states_image=told.image, return_dict=False
        )
    torch.testing.assert_close(ours, theirs[:, :, 1:], atol=1e-5, rtol=1e-5)  # the sums of a folded kernel are split


def load_transformer(folder):
    return WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)


def test_the_start_image_is_told_by_the_hidden_state_before_the_last(folder, told):
    clip = CLIPVisionModel.from_pretrained(folder / "image_encoder")
    pixels = CLIPImageProcessorPil.from_pretrained(folder / "image_processor")(images=PICTURE, return_tensors="pt")
    with torch.no_grad():
        expected = clip(**pixels, output_hidden_states=True).hidden_states[-2]
    assert isinstance(told, WanConditioning)
    assert torch.equal(told.image, expected)
    assert told.text.shape == (1, 512, 16)


def test_what_is_not_given_is_the_latent_of_gray_in_the_middle_of_a_video(folder):
    codec = load_backbone(folder).codec
    long = codec.encode(torch.zeros(1, 3, 33, 160, 160))
    # The encoder's attention sees the edges, which are nearer in the smaller picture: 1.6e-3 apart.
    torch.testing.assert_close(blank_latent(codec), long[0, :, -1, 10, 10], atol=5e-3, rtol=0.0)
    assert (blank_latent(codec) - codec.encode(torch.zeros(1, 3, 1, 32, 32))[0, :, 0, 0, 0]).abs().max() > 0.02


def test_a_network_that_is_given_nothing_begins_history_as_it_is(tiny_backbone_folder):
    transformer = load_backbone(tiny_backbone_folder).transformer
    assert known_frames(transformer) is transformer.patch_embedding


def test_an_image_to_video_model_makes_a_video(folder, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "start.png")
    asked = {"model": str(folder), "prompt": "a red ball", "image": str(tmp_path / "start.png"), "seconds": 4,
             "height": 32, "width": 48, "steps": 2, "guidance": 2.0}  # fmt: skip
    events = list(generate(read_request(asked), tmp_path / "a.mp4", tmp_path / "a.run"))
    assert isinstance(events[-1], Finished)
    assert Run.open(tmp_path / "a.run").has_section(0)


def test_the_width_of_the_image_encoder_is_checked(spoiled):
    shutil.rmtree(spoiled / "image_encoder")
    config = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                              image_size=32, patch_size=16)  # fmt: skip
    CLIPVisionModel(config).save_pretrained(spoiled / "image_encoder")
    refused(spoiled, "width of the image: 16, but the transformer is made for 24")


def test_an_image_encoder_that_is_missing_is_named(spoiled):
    shutil.rmtree(spoiled / "image_encoder")
    refused(spoiled, "the model lacks image_encoder/")


def test_a_transformer_that_looks_at_no_image_does_not_fit(spoiled, tiny_backbone_folder):
    shutil.rmtree(spoiled / "transformer")
    shutil.copytree(tiny_backbone_folder / "transformer", spoiled / "transformer")
    refused(spoiled, "an image-to-video Wan has a transformer of 36 channels with image_dim")
