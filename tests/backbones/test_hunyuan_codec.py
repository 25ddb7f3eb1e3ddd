import copy
from contextlib import contextmanager

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    AutoencoderKLHunyuanVideo,
    prepare_causal_attention_mask,
)
from torch import Tensor

from longtake.backbones.hunyuan import codec as hunyuan_codec
from longtake.backbones.hunyuan.causal import attend_by_frame
from longtake.backbones.hunyuan.codec import HunyuanCodec
from longtake.backbones.hunyuan.stream import SectionStream, blend_weights

SCALE = 0.476986  # of the published checkpoint
HEIGHT, WIDTH = 2, 3  # latents
ROUND_OFF = 3e-5  # of images in -4..4, in float32: sums in another order, some forty layers deep


def new_network():
    """The real class with its real tiles in time, four levels that make the ratios 4 and 8, and little else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoencoderKLHunyuanVideo(
            block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=SCALE
        ).eval()
        with torch.no_grad():  # loud enough that images are in -1..1 but for some, which are clamped
            network.decoder.conv_out.conv.weight.mul_(2.0)
    return network


@pytest.fixture(scope="module")
def stock():
    """The network as diffusers has it."""
    return new_network()


@pytest.fixture(scope="module")
def codec():
    return HunyuanCodec(new_network())


def latents(frames, seed=1, channels=16, height=HEIGHT, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    return SCALE * torch.randn(1, channels, frames, height, width, generator=generator)


def video(images, seed=3):
    return torch.rand(1, 3, images, 8 * HEIGHT, 8 * WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def stock_decode(network, z):
    with torch.no_grad():
        return network.decode(z / SCALE).sample


def difference(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@contextmanager
def counted_calls(module):
    """The number of frames of each call."""
    calls = []
    handle = module.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape[2]))
    try:
        yield calls
    finally:
        handle.remove()


def in_sections(count, window, backward):
    """The frames of a video's sections in the order in which they are made; the first in time has frame 0, too."""
    sections = [range(1 + window * k if k else 0, 1 + window * (k + 1)) for k in range(count)]
    return sections[::-1] if backward else sections


def streamed(stream, z, sections):
    """What each call finishes."""
    return [stream.add(frames, z[:, :, frames.start : frames.stop]) for frames in sections]


def whole_history(network, z, count, window, backward):
    """FramePack's way: all images so far are kept, and the overlap is mixed into them after each section."""
    overlap = 4 * window - 3
    history, known, growth = None, z[:, :, :0], []
    for frames in in_sections(count, window, backward):
        new = z[:, :, frames.start : frames.stop]
        known = torch.cat([new, known] if backward else [known, new], dim=2)
        if history is None:
            history = stock_decode(network, known)
            growth.append(history.shape[2])
            continue
        size = window + len(frames)
        current = stock_decode(network, known[:, :, :size] if backward else known[:, :, -size:])
        front, back = (current, history) if backward else (history, current)
        mixed = []
        for k in range(overlap):
            share = (overlap - 1 - k) / (overlap - 1) if overlap > 1 else 1.0
            mixed.append(share * front[:, :, front.shape[2] - overlap + k] + (1 - share) * back[:, :, k])
        before = history.shape[2]
        parts = [front[:, :, : front.shape[2] - overlap], torch.stack(mixed, dim=2), back[:, :, overlap:]]
        history = torch.cat(parts, dim=2)
        growth.append(history.shape[2] - before)
    return history.clamp(-1, 1), growth


# Encoding


@pytest.mark.parametrize("images", [1, 5, 17, 37])
def test_encoding_is_the_mean_that_diffusers_gives_scaled(codec, stock, images):
    pixels = video(images)
    with torch.no_grad():
        mean = stock.encode(pixels).latent_dist.mean
    encoded = codec.encode(pixels)
    assert encoded.shape == (1, 16, 1 + images // 4, HEIGHT, WIDTH)
    assert encoded.dtype == torch.float32
    assert difference(encoded, SCALE * mean) < ROUND_OFF


def test_a_latent_that_two_tiles_share_is_that_of_the_earlier_one(codec):
    """As `encode` says of long videos."""
    pixels = video(37)
    whole, first, second = codec.encode(pixels), codec.encode(pixels[:, :, :17]), codec.encode(pixels[:, :, 12:29])
    assert difference(whole[:, :, :5], first) < ROUND_OFF
    assert difference(whole[:, :, 5:7], second[:, :, 2:4]) < ROUND_OFF


def test_a_sample_depends_on_its_seed_alone(codec):
    pixels = video(5)
    state = torch.random.get_rng_state()
    one, again, other = codec.sample(pixels, seed=7), codec.sample(pixels, seed=7), codec.sample(pixels, seed=8)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_samples_are_spread_as_the_posterior(codec, stock):
    pixels = video(1)
    with torch.no_grad():
        posterior = stock.encode(pixels).latent_dist
    samples = torch.cat([codec.sample(pixels, seed) for seed in range(400)])
    error = SCALE * posterior.std / 400**0.5
    assert ((samples.mean(0) - SCALE * posterior.mean).abs() / error).max() < 5  # 96 numbers: beyond 5 one in 20,000
    assert ((samples.std(0) / (SCALE * posterior.std)) - 1).abs().max() < 0.2  # its own error is 1 in 28


def test_a_video_of_a_broken_length_is_refused(codec):
    with pytest.raises(ValueError, match="36 images: a video has 1 \\+ 4 n"):
        codec.encode(video(36))


# Decoding one window


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6, 7, 9, 10, 18, 19])
def test_decode_is_that_of_diffusers(codec, stock, frames):
    z = latents(frames)
    images, expected = codec.decode(z), stock_decode(stock, z)
    assert images.shape == (1, 3, 4 * frames - 3, 8 * HEIGHT, 8 * WIDTH)
    assert expected.std() > 0.1
    assert expected.abs().max() > 1
    assert difference(images, expected.clamp(-1, 1)) < ROUND_OFF


def test_decode_has_the_bits_of_diffusers_where_attention_is_the_same():
    """Also in half precision: tiles are cut and cross-faded with the same arithmetic."""
    for dtype in (torch.float32, torch.bfloat16):
        changed = HunyuanCodec(new_network().to(dtype))
        z = latents(18)
        with torch.no_grad():
            expected = changed.network.decode((z / SCALE).to(dtype)).sample
        assert torch.equal(changed.decode(z), expected.clamp(-1, 1))


def test_frames_are_decoded_in_tiles_of_five(codec):
    assert codec.tiles(range(18)) == [range(k, min(k + 5, 18)) for k in range(0, 18, 3)]
    assert codec.tiles(range(7, 11)) == [range(7, 11)]
    assert codec.tiles(range(10)) == [range(5), range(3, 8), range(6, 10)]  # and not frame 9 alone, which shows nothing


def test_attention_by_frames_is_masked_attention(stock):
    changed = copy.deepcopy(stock.decoder.mid_block)
    attend_by_frame(changed)
    attend_by_frame(changed)
    x = torch.randn(2, 8, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert difference(changed(x), stock.decoder.mid_block(x)) < ROUND_OFF
        without = copy.deepcopy(stock.decoder.mid_block)
        without.attentions[0] = None
        assert difference(changed(x), without(x)) > 0.01


def test_an_attention_mask_is_never_made(codec, monkeypatch):
    module = "diffusers.models.autoencoders.autoencoder_kl_hunyuan_video.prepare_causal_attention_mask"
    made = []

    def counted(*args, **kwargs) -> Tensor:
        made.append(args)
        return prepare_causal_attention_mask(*args, **kwargs)

    monkeypatch.setattr(module, counted)
    codec.decode(latents(5))
    codec.encode(video(5))
    assert not made


def test_a_batch_is_its_videos(codec):
    z = torch.cat([latents(6, seed=k) for k in range(2)])
    assert difference(codec.decode(z), torch.cat([codec.decode(one) for one in z.split(1)])) < ROUND_OFF


def test_half_precision_keeps_latents_in_float32():
    half = HunyuanCodec(new_network().bfloat16())
    assert half.encode(video(1)).dtype == half.sample(video(1), 0).dtype == torch.float32
    assert half.decode(latents(5)).dtype == torch.bfloat16


def test_fingerprints_tell_weights_apart_and_nothing_else(codec):
    assert HunyuanCodec(new_network(), tiled=True, channels_last=True).fingerprint == codec.fingerprint
    other = new_network()
    with torch.no_grad():
        other.post_quant_conv.bias[0] += 1
    assert HunyuanCodec(other).fingerprint != codec.fingerprint


def test_large_images_are_tiled_as_in_diffusers(stock):
    z = latents(6, height=33, width=2)  # 264 x 16
    tiled, whole = HunyuanCodec(new_network(), tiled=True), copy.deepcopy(stock)
    with counted_calls(tiled.network.decoder) as calls:
        images = tiled.decode(z)
    assert calls == [5, 5, 3, 3]  # two in time, two in height
    plain = stock_decode(whole, z).clamp(-1, 1)
    whole.enable_tiling()
    assert difference(images, stock_decode(whole, z).clamp(-1, 1)) < ROUND_OFF
    assert difference(images, plain) > 0.01  # the norms see less


@pytest.mark.parametrize(("side", "stride", "tiles"), [(640, 320, 2), (608, 304, 2), (320, 320, 1), (960, 320, 3)])
def test_halves_cover_a_side_evenly(side, stride, tiles):
    found = hunyuan_codec._even(side, 8)
    assert found == stride
    assert len(range(0, side, found)) == tiles


def test_in_halves_few_tiles_are_decoded_and_encoding_is_as_before(stock):
    codec, whole = HunyuanCodec(new_network(), tiled="halves"), copy.deepcopy(stock)
    z = latents(5, height=40, width=2)  # 320 x 16: one tile of "halves", two of diffusers
    with counted_calls(codec.network.decoder) as calls:
        images = codec.decode_tile(z)
    assert len(calls) == 1
    assert difference(images, HunyuanCodec(whole).decode_tile(z)) < ROUND_OFF
    with counted_calls(codec.network.decoder) as calls:
        codec.decode_tile(latents(2, height=41))
    assert len(calls) == 2
    assert codec.network.tile_sample_stride_height == 192


def test_images_that_fit_a_tile_are_not_tiled(codec):
    tiled = HunyuanCodec(new_network(), tiled=True)
    assert torch.equal(tiled.decode(latents(5)), codec.decode(latents(5)))


def test_channels_last_is_the_same_function(codec):
    other = HunyuanCodec(new_network(), channels_last=True)
    assert other.network.decoder.conv_in.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert difference(other.decode(latents(6)), codec.decode(latents(6))) < ROUND_OFF
    assert difference(other.encode(video(5)), codec.encode(video(5))) < ROUND_OFF


# Decoding section by section


def test_overlaps_are_mixed_from_exactly_one_to_exactly_zero():
    weights = blend_weights(33)
    assert weights[0] == 1
    assert weights[-1] == 0
    steps = [(32 - k) / 32 for k in range(33)]  # binary fractions: no rounding
    assert weights.tolist() == steps


@pytest.mark.parametrize("window", [9, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_sections_are_decoded_as_framepack_does(codec, stock, backward, count, window):
    total = 1 + window * count
    z = latents(total)
    expected, growth = whole_history(stock, z, count, window, backward)
    calls = streamed(SectionStream(codec, total), z, in_sections(count, window, backward))
    finished = sorted((one for call in calls for one in call), key=lambda one: one.first)
    images = torch.cat([one.images for one in finished], dim=2)
    assert [one.first for one in finished] == [0] + [4 * window * k + 1 for k in range(1, count)]
    assert [one.frames for one in finished] == in_sections(count, window, backward=False)
    assert images.shape[2] == sum(growth) == 4 * window * count + 1
    assert difference(images, expected) < ROUND_OFF
    # each call but the last gives out the section made before
    assert [len(call) for call in calls] == ([1] if count == 1 else [0, *[1] * (count - 2), 2])


def test_the_recorded_numbers_of_images(stock):
    """What one decoding gives and by how much the video grows: official-walk, 1.10, for nine frames a section."""
    assert [stock_decode(stock, latents(frames)).shape[2] for frames in (9, 10, 18, 19)] == [33, 37, 69, 73]
    z = latents(28)
    assert whole_history(stock, z, 3, 9, backward=True)[1] == [33, 36, 40]
    assert whole_history(stock, z, 3, 9, backward=False)[1] == [37, 36, 36]


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_tiles_that_two_windows_share_are_decoded_once(codec, monkeypatch, backward):
    """Two of six; bit for bit what decoding all of them gives."""
    z, sections = latents(46), in_sections(5, 9, backward)
    with counted_calls(codec.network.decoder) as calls:
        fewer = []
        stream = SectionStream(codec, 46)
        images = []
        for frames in sections:
            images += stream.add(frames, z[:, :, frames.start : frames.stop])
            fewer.append(len(calls))
            calls.clear()
        # Forward, the second window begins one frame into the first, so that no tile is the same. Backward, the whole
        # first window is the end of the second; and the last one is shifted by the start frame.
        assert fewer == ([3, 3, 4, 4, 6] if backward else [3, 6, 4, 4, 4])
        plain = []
        stream = SectionStream(codec, 46)
        for frames in sections:
            stream._tiles.clear()
            plain += stream.add(frames, z[:, :, frames.start : frames.stop])
        assert len(calls) == 3 + 4 * 6
    assert all(torch.equal(a.images, b.images) for a, b in zip(images, plain, strict=True))


def test_windows_that_move_by_no_multiple_of_three_share_no_tile(codec):
    z = latents(17)
    with counted_calls(codec.network.decoder) as calls:
        streamed(SectionStream(codec, 17), z, in_sections(4, 4, backward=False))
        assert len(calls) == 2 + 3 * 3


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_what_is_held_does_not_grow(codec, backward):
    def size(value):
        if isinstance(value, Tensor):
            return value.untyped_storage().nbytes()
        if isinstance(value, dict):
            return sum(size(one) for one in value.values())
        return 0

    count, z = 6, latents(55)
    stream, held = SectionStream(codec, 55), []
    for frames in in_sections(count, 9, backward):
        stream.add(frames, z[:, :, frames.start : frames.stop].clone())
        held.append(size(stream._tiles) + size(stream._last.latents) + size(stream._last.open))
    assert held[2] == held[3] == held[4] > 0


@pytest.mark.parametrize("behind", [0, 1, 2])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_stream_goes_on_bit_for_bit_after_a_stop(codec, backward, behind):
    z, sections = latents(37), in_sections(4, 9, backward)
    whole = streamed(SectionStream(codec, 37), z, sections)
    stream = SectionStream(codec, 37)
    if behind:
        before = sections[behind - 1]
        stream.warm_up(before, z[:, :, before.start : before.stop])
    again = streamed(stream, z, sections[behind:])
    assert again[0] == []
    for expected, images in zip(whole[behind + 1 :], again[1:], strict=True):
        assert [one.first for one in images] == [one.first for one in expected]
        assert all(torch.equal(a.images, b.images) for a, b in zip(images, expected, strict=True))


def test_images_are_clamped_after_mixing(codec):
    """Mixed first, as the official program does: an image beyond white may be pulled back by its neighbor."""
    z = 3 * latents(19)
    finished = streamed(SectionStream(codec, 19), z, in_sections(2, 9, backward=False))[-1]
    early, late = (codec.join([codec.decode_tile(z[:, :, s.start : s.stop]) for s in codec.tiles(f)]) for f in WINDOWS)
    mixed = (early[:, :, 20] + late[:, :, 16]) / 2  # the middle of 33, which are images 4 to 36
    assert (mixed.clamp(-1, 1) - (early[:, :, 20].clamp(-1, 1) + late[:, :, 16].clamp(-1, 1)) / 2).abs().max() > 0.01
    assert difference(finished[0].images[:, :, 20], mixed.clamp(-1, 1)) < ROUND_OFF


WINDOWS = range(10), range(1, 19)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([range(10, 19)], "frames 10 to 18: expected a section at an end of the 28"),
        ([range(10), range(19, 28)], "frames 19 to 27: expected a section next to 0 to 9"),
        ([range(10), range(10, 29)], "frames 10 to 28: expected a section within the 28"),
    ],
)
def test_a_section_that_is_not_next_is_refused(codec, sections, message):
    stream = SectionStream(codec, 28)
    *before, wrong = sections
    for frames in before:
        stream.add(frames, latents(len(frames)))
    with pytest.raises(ValueError, match=message):
        stream.add(wrong, latents(len(wrong)))


def test_latents_of_another_number_are_refused(codec):
    with pytest.raises(ValueError, match="9 latents for frames 0 to 9"):
        SectionStream(codec, 10).add(range(10), latents(9))
