"""What a section asks of a network, against recorded numbers and against what PyTorch counts."""

import weakref

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLWan
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from longtake.backbones import MODELS, codec, load_backbone
from longtake.backbones.architecture import CodecShape, new_codec
from longtake.backbones.blueprints import blueprint_of, published_codec, published_transformer
from longtake.backbones.codec import Codec, decoded_together, encoded_together, encoder_bytes, live_bytes
from longtake.backbones.hunyuan.buckets import Bucket
from longtake.backbones.hunyuan.prompts import LIMIT
from longtake.backbones.workload import (
    TEXT_TOKENS,
    Tokens,
    decoding_of,
    operations_of,
    tilings_of,
    tokens_of,
    traffic_of,
)
from longtake.errors import ModelError
from longtake.schedule import parse

PUBLISHED = [row for row in MODELS.values() if not row.assets]
GIB = 2**30


@pytest.fixture(scope="module")
def framepack():
    return blueprint_of("framepack-i2v")


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_published_networks_have_the_parameters_of_the_catalog(row):
    (autoencoder,) = [part for part in row.parts if part.name == "vae"]
    assert sum(p.numel() for p in published_transformer(row).parameters()) == row.parts[0].parameters
    assert sum(p.numel() for p in published_codec(row).parameters()) == autoencoder.parameters


def test_a_config_that_is_here_is_believed(tiny_backbone_folder):
    here = blueprint_of("wan2.1-t2v-1.3b", places={"Wan-AI/Wan2.1-T2V-1.3B-Diffusers": tiny_backbone_folder})
    assert here.transformer.config["num_attention_heads"] == 2
    assert here.settings == MODELS["wan2.1-t2v-1.3b"].settings


def test_a_folder_has_a_blueprint_without_its_weights_being_read(tiny_backbone_folder):
    blueprint, backbone = blueprint_of(str(tiny_backbone_folder), torch.float32), load_backbone(tiny_backbone_folder)
    own = {name for name, _ in backbone.transformer.named_parameters() if not name.startswith("history_patch_embed")}
    assert {name for name, _ in blueprint.transformer.named_parameters()} == own
    assert all(p.is_meta for network in (blueprint.transformer, blueprint.codec) for p in network.parameters())
    assert blueprint.encoders == (sum(p.numel() for p in backbone.prompts.encoder.parameters()),)
    assert (blueprint.grid, blueprint.channels, blueprint.temporal_ratio) == (
        backbone.grid[0], backbone.codec.channels, backbone.codec.temporal_ratio,
    )  # fmt: skip
    assert blueprint.settings == backbone.settings


def test_a_network_that_diffusers_does_not_have_is_refused(tiny_backbone_folder, tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "Somebodys3DModel"}')
    with pytest.raises(ModelError, match="Somebodys3DModel, which diffusers does not have"):
        blueprint_of(str(tmp_path))


def test_a_section_of_framepack_has_the_recorded_tokens_and_operations(framepack):
    schedule = parse(framepack.settings.schedules["inverted"])
    tokens = tokens_of(framepack, schedule.section_tokens(80, 76), schedule.context_tokens(80, 76))
    assert tokens == Tokens(noisy=13680, history=3820, text=256, image=729, joint=True)
    assert tokens.sequence == 18485
    operations = operations_of(framepack.transformer, tokens)
    # Counted by PyTorch for the whole network: 251.2027 and 251.9251 TFLOP.
    assert operations.linear == pytest.approx(251.2027e12, rel=1e-6)
    assert operations.attention == pytest.approx(251.9251e12, rel=1e-6)


def test_the_text_that_is_counted_is_what_the_encoder_gives_at_most():
    assert TEXT_TOKENS == LIMIT


@pytest.mark.parametrize(("name", "linear", "attention"), [("wan2.1-t2v-1.3b", 45, 62), ("wan2.1-t2v-14b", 432, 272)])
def test_wan_has_the_recorded_operations_too(name, linear, attention):
    """At 480 x 832, in TFLOP; those of attention are its own and those across to 512 tokens of text."""
    blueprint = blueprint_of(name)
    operations = operations_of(blueprint.transformer, tokens_of(blueprint, noisy=17966, history=0))
    assert operations.linear / 1e12 == pytest.approx(linear, abs=1.0)  # the sum of two that are rounded to one
    assert operations.attention / 1e12 == pytest.approx(attention, abs=1.0)


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_operations_are_those_that_pytorch_counts(framepack):
    network, tokens = framepack.transformer, tokens_of(framepack, 600, 200)
    text = tokens.text + tokens.image
    phases = tuple(empty(800, 128, dtype=torch.float32) for _ in range(2))
    total = 0
    for blocks in (network.transformer_blocks, network.single_transformer_blocks):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            blocks[0](empty(1, 800, 3072), empty(1, text, 3072), empty(1, 3072), None, phases)
        total += len(blocks) * counter.get_total_flops()
    operations = operations_of(network, tokens)
    # One row a block is modulated, which is left out: a thousandth of what 1,785 tokens take.
    assert operations.linear + operations.attention == pytest.approx(total, rel=2e-3)
    assert operations.linear + operations.attention < total


def test_traffic_grows_with_tokens_and_with_the_width_of_numbers():
    half, single = blueprint_of("embedded"), blueprint_of("embedded", torch.float32)
    few, many = (tokens_of(half, noisy, 0) for noisy in (100, 300))
    assert traffic_of(half.transformer, many) == 3 * traffic_of(half.transformer, few)
    assert traffic_of(single.transformer, few) == 2 * traffic_of(half.transformer, few)


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that some tensor made inside still has."""

    def __init__(self):
        super().__init__()
        self.users, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.users:
                self.users[key], self.now = 0, self.now + size
                self.peak = max(self.peak, self.now)
            self.users[key] += 1
            weakref.finalize(tensor, self.drop, key, size)
        return out

    def drop(self, key, size):
        self.users[key] -= 1
        if self.users[key] == 0:
            del self.users[key]
            self.now -= size


@pytest.mark.parametrize(
    ("name", "size", "frames"),
    [
        ("embedded", Bucket(96, 160), 9),
        ("embedded", Bucket(192, 320), 3),
        ("wan2.1-t2v-14b", Bucket(480, 832), 1),
        ("wan2.1-t2v-14b", Bucket(128, 128), 9),
        ("wan2.2-ti2v-5b", Bucket(704, 1280), 1),
    ],
)
def test_wans_decoder_keeps_alive_what_is_said(name, size, frames):
    network = blueprint_of(name).codec
    autoencoder = Codec(network)
    h, w = size.height // autoencoder.spatial_ratio, size.width // autoencoder.spatial_ratio
    stream, latents = autoencoder.stream(), empty(1, autoencoder.channels, frames, h, w)
    stream.decode(latents)  # its first frame is another's work
    with Live() as live:
        stream.decode(latents)
    assert decoded_together(network, frames, size.height, size.width) == frames
    assert live.peak == pytest.approx(live_bytes(network, frames, size.height, size.width), rel=0.1)


@pytest.mark.parametrize(
    ("name", "size", "images"),
    [
        ("embedded", Bucket(96, 160), 64),
        ("wan2.1-t2v-14b", Bucket(480, 832), 8),
        ("wan2.1-t2v-14b", Bucket(128, 128), 64),
        ("wan2.2-ti2v-5b", Bucket(704, 1280), 4),
    ],
)
def test_wans_encoder_keeps_alive_what_is_said(name, size, images):
    network = blueprint_of(name).codec
    intake = Codec(network).intake()
    intake.encode(empty(1, 3, 5, size.height, size.width))  # its first frame is another's work
    with Live() as live:
        intake.encode(empty(1, 3, images, size.height, size.width))
    assert encoded_together(network, size.height, size.width) == images
    assert live.peak == pytest.approx(encoder_bytes(network, images, size.height, size.width), rel=0.15)


def test_a_large_video_is_encoded_in_parts_that_equal_the_whole(monkeypatch):
    network = new_codec(CodecShape(encoder_width=4, decoder_width=4, channels=4))
    images = torch.randn(1, 3, 25, 32, 48, generator=torch.Generator().manual_seed(0))
    whole = Codec(network).encode(images)
    monkeypatch.setattr(codec, "_ENCODE_BYTES", encoder_bytes(network, 8, 32, 48))
    assert encoded_together(network, 32, 48) == 8
    # Convolutions of other shapes may add up in another order.
    torch.testing.assert_close(Codec(network).encode(images), whole, rtol=0, atol=1e-5)
    monkeypatch.setattr(codec, "_ENCODE_BYTES", 0)
    assert encoded_together(network, 32, 48) == 4


def test_a_large_section_is_decoded_in_parts_that_equal_the_whole(monkeypatch):
    network = new_codec(CodecShape(encoder_width=4, decoder_width=4, channels=4))
    latents = torch.randn(1, 4, 10, 4, 6, generator=torch.Generator().manual_seed(0))
    whole = Codec(network).decode(latents)
    assert decoded_together(network, 9, 32, 48) == 9
    monkeypatch.setattr(codec, "_DECODE_BYTES", live_bytes(network, 2, 32, 48))
    assert decoded_together(network, 9, 32, 48) == 2
    # Convolutions of other shapes may add up in another order.
    torch.testing.assert_close(Codec(network).decode(latents), whole, rtol=0, atol=1e-5)
    monkeypatch.setattr(codec, "_DECODE_BYTES", 0)
    assert decoded_together(network, 9, 32, 48) == 1


def test_what_a_section_of_wan_decodes_with_does_not_grow_with_its_frames():
    blueprint = blueprint_of("wan2.1-t2v-1.3b")
    one, nine = (decoding_of(blueprint, Bucket(480, 832), frames) for frames in (1, 9))
    assert one.activations == nine.activations < 4 * GIB  # all nine together would take 20 GiB
    assert nine.operations == pytest.approx(9 * one.operations)


def test_decoding_of_hunyuan_takes_the_recorded_bytes_and_operations(framepack):
    assert isinstance(framepack.codec, AutoencoderKLHunyuanVideo)
    whole, halves, tiles = (decoding_of(framepack, Bucket(640, 608), 9, way) for way in ("whole", "halves", "tiles"))
    assert [round(each.activations / GIB, 1) for each in (whole, tiles)] == [5.9, 2.1]
    assert whole.operations == pytest.approx(420e12)
    # Measured: 7.2 GiB, 4.13 to 4.35 and 3.2, weights and held images among them.
    all_of_it = [(d.weights + d.activations + d.workspace + d.held) / GIB for d in (whole, halves, tiles)]
    assert all_of_it == pytest.approx([7.2, 4.35, 3.2], rel=0.05)


def test_pictures_are_tiled_where_tiles_are_smaller(framepack):
    assert tilings_of(framepack, Bucket(640, 608)) == ("whole", "halves", "tiles")
    assert tilings_of(framepack, Bucket(320, 304)) == ("whole", "tiles")
    assert tilings_of(framepack, Bucket(256, 256)) == ("whole",)
    assert tilings_of(blueprint_of("embedded"), Bucket(640, 608)) == ("whole",)


def test_operations_of_wans_decoder_are_counted_on_a_small_picture_for_all():
    blueprint = blueprint_of("wan2.1-t2v-1.3b")
    assert isinstance(blueprint.codec, AutoencoderKLWan)
    with FlopCounterMode(display=False) as counter:
        stream = Codec(blueprint.codec).stream()
        stream.decode(empty(1, 16, 1, 30, 52))
        before = counter.get_total_flops()
        stream.decode(empty(1, 16, 9, 30, 52))
    # Its one attention grows faster than the picture: a hundredth of all at this size.
    counted = counter.get_total_flops() - before
    assert decoding_of(blueprint, Bucket(240, 416), 9).operations == pytest.approx(counted, rel=0.02)
