import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from longtake.backbones.codec import Codec

SHAPES = {
    # pixel unshuffle and averaging shortcuts, as the embedded model and Wan 2.2 have them
    "residual": {
        "base_dim": 4,
        "dim_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
    },
    # as Wan 2.1
    "plain": {"base_dim": 8, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]},
}
HEIGHT, WIDTH = 2, 3  # latents


@pytest.fixture(scope="module", params=list(SHAPES))
def codec(request):
    torch.manual_seed(0)
    mean, deviation = torch.randn(4).tolist(), (torch.rand(4) + 0.5).tolist()
    network = AutoencoderKLWan(z_dim=4, latents_mean=mean, latents_std=deviation, **SHAPES[request.param])
    return Codec(network.eval())


def latents(frames, seed=1):
    return torch.randn(1, 4, frames, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def stock_decode(codec, z):
    config = codec.network.config
    mean, deviation = (torch.tensor(config[k]).view(1, -1, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    with torch.no_grad():
        return codec.network.decode(z * deviation + mean).sample


def streamed(codec, z, chunks):
    stream = codec.stream()
    return torch.cat([stream.decode(chunk) for chunk in z.split(chunks, dim=2)], dim=2)


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("sections", [[10, 9, 9], [1, 9, 9, 9], [28], [2, 1, 1, 3, 21], [1, 3, 3, 3, 3, 15]])
def test_streaming_is_decoding_the_whole(codec, sections):
    z = latents(28)
    images, stock = streamed(codec, z, sections), stock_decode(codec, z)
    assert images.shape == stock.shape == (1, 3, 109, 16, 24)
    assert stock.std() > 0.02
    assert difference(images, stock) < 1e-5  # sums in another order


def test_decode_is_that_of_diffusers(codec):
    z = latents(20)
    assert difference(codec.decode(z), stock_decode(codec, z)) < 1e-5


def test_an_image_depends_on_frames_within_reach_and_on_no_other(codec):
    """Bit for bit, in the same chunks."""
    last = codec.reach + 1
    z = latents(last + 1)
    images = streamed(codec, z, [1, last])[:, :, -4:]
    for frame, seen in ((0, False), (1, True)):  # frame 1 is `reach` before the last
        other = z.clone()
        other[:, :, frame] += 1000.0 * latents(1, seed=2)[:, :, 0]
        changed = streamed(codec, other, [1, last])[:, :, -4:]
        assert torch.equal(images, changed) != seen


@pytest.mark.parametrize("generated", [9, 4])
def test_a_stream_goes_on_bit_for_bit_after_warming_up(codec, generated):
    """From `lead` frames before, whatever was before them, and from fewer where the video is younger."""
    sections = -(-codec.reach // generated) + 3
    z = latents(1 + generated * sections)
    stream, made = codec.stream(), {}
    for k in range(sections):
        first = 0 if k == 0 else 1 + generated * k
        made[k] = stream.decode(z[:, :, first : 1 + generated * (k + 1)])
    for k in (1, sections - 2, sections - 1):
        first = 1 + generated * k
        resumed = codec.stream()
        resumed.warm_up(z[:, :, max(0, first - codec.lead(generated)) : first], generated)
        assert torch.equal(resumed.decode(z[:, :, first : first + generated]), made[k])


def test_context_on_the_left_makes_a_section_exact(codec):
    lead = codec.lead(9)
    z = latents(lead + 9 + 5)
    whole = stock_decode(codec, z)
    first = lead + 5
    images = codec.decode_with_context(z[:, :, 5:first], z[:, :, first:])
    assert images.shape[2] == 36
    assert difference(images, whole[:, :, 4 * first - 3 :]) < 1e-5
    errors = [
        difference(codec.decode_with_context(z[:, :, first - c : first], z[:, :, first:]), images) for c in (1, 4, 9)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_without_context_a_section_begins_the_video(codec):
    z = latents(10)
    assert difference(codec.decode_with_context(z[:, :, :0], z), stock_decode(codec, z)) < 1e-5


@pytest.mark.parametrize("images", [1, 5, 37, 149])
def test_encoding_is_the_mean_that_diffusers_gives_normalized(codec, images):
    video = torch.rand(1, 3, images, 16, 24, generator=torch.Generator().manual_seed(3)) * 2 - 1
    encoded = codec.encode(video)
    assert encoded.shape == (1, 4, 1 + images // 4, HEIGHT, WIDTH)
    assert encoded.dtype == torch.float32
    config = codec.network.config
    with torch.no_grad():
        stock = codec.network.encode(video).latent_dist.mean
    mean, deviation = (torch.tensor(config[k]).view(1, -1, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    assert difference(encoded, (stock - mean) / deviation) < 1e-5


def test_a_video_of_a_broken_length_is_refused(codec):
    with pytest.raises(ValueError, match="36 images: a video has 1 \\+ 4 n"):
        codec.encode(torch.zeros(1, 3, 36, 16, 24))


def test_a_batch_is_its_videos(codec):
    z = torch.cat([latents(10, seed=k) for k in range(3)])
    together = codec.decode(z)
    assert difference(together, torch.cat([codec.decode(one) for one in z.split(1)])) < 1e-5


def test_half_precision_keeps_latents_in_float32(codec):
    half = Codec(AutoencoderKLWan.from_config(codec.network.config).bfloat16())
    assert half.encode(torch.zeros(1, 3, 1, 16, 24)).dtype == torch.float32
    assert half.decode(latents(1)).dtype == torch.bfloat16


@pytest.mark.parametrize("pieces", [(1, 4, 4, 12), (21,), (7, 7, 7), (2, 1, 1, 1, 16), (20, 1)])
def test_a_video_that_comes_in_pieces_is_encoded_as_the_whole(codec, pieces):
    images = torch.rand(1, 3, 21, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    intake = codec.intake()
    parts = [intake.encode(piece) for piece in images.split(pieces, dim=2)]
    complete = [1 + (sum(pieces[: n + 1]) - 1) // 4 for n in range(len(pieces))]
    assert [sum(part.shape[2] for part in parts[: n + 1]) for n in range(len(parts))] == complete
    assert difference(torch.cat(parts, dim=2), codec.encode(images)) < 1e-5  # sums in another order


def test_a_stream_is_warmed_up_in_the_chunks_of_the_sections_that_follow(codec):
    """Whatever number of frames is before them: what follows has the same bits."""
    z, whole, later = latents(24), codec.stream(), codec.stream()
    whole.warm_up(z[:, :, :6], 9)
    images = [whole.decode(z[:, :, 6:15]), whole.decode(z[:, :, 15:])]
    assert torch.equal(later.warm_up(z[:, :, :15], 9), images[0])
    assert torch.equal(later.decode(z[:, :, 15:]), images[1])
