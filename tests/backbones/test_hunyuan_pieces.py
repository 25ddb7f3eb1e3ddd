import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from longtake.backbones.hunyuan import folded, pieces
from longtake.backbones.hunyuan.codec import HunyuanCodec

EXACT = 1e-12  # of images in -4..4, in float64: sums in another order


def new_network(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoencoderKLHunyuanVideo(
            block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=1.0
        )
        for name, weight in network.named_parameters():  # norms that do something
            if "norm" in name:
                torch.nn.init.normal_(weight, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    return network.eval().to(dtype)


def latents(frames, batch=1):
    return torch.randn(batch, 16, frames, 2, 3, generator=torch.Generator().manual_seed(1))


def difference(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def in_pieces_of(monkeypatch, size):
    for module in (pieces, folded):
        monkeypatch.setattr(module, "PIECE", size)


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("layers", ["pieces", "folded"])
@pytest.mark.parametrize("size", [1, 1 << 15, 1 << 28], ids=["one", "some", "all"])
def test_a_tile_in_pieces_is_the_whole(monkeypatch, layers, size, channels_last):
    in_pieces_of(monkeypatch, size)
    whole = HunyuanCodec(new_network())
    codec = HunyuanCodec(new_network(), layers=layers, channels_last=channels_last)
    for frames, batch in ((1, 1), (2, 1), (5, 2)):
        z = latents(frames, batch)
        assert difference(codec.decode_tile(z), whole.decode_tile(z)) < EXACT


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("layers", ["whole", "pieces", "folded"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, EXACT), (torch.float32, 1e-2)], ids=["plain", "kernels"])
def test_a_gpu_decodes_the_same(monkeypatch, layers, channels_last, dtype, near):
    """In float32 with kernels; convolutions round to ten bits there."""
    in_pieces_of(monkeypatch, 1 << 15)
    z = latents(5, batch=2)
    codec = HunyuanCodec(new_network(dtype).cuda(), layers=layers, channels_last=channels_last)
    assert difference(codec.decode_tile(z).cpu().double(), HunyuanCodec(new_network()).decode_tile(z)) < near


@pytest.mark.parametrize("layers", ["pieces", "folded"])
def test_half_precision_is_not_less_exact_in_pieces(layers):
    z = latents(5, batch=2)
    exact = HunyuanCodec(new_network()).decode_tile(z)
    errors = [
        (HunyuanCodec(new_network(torch.bfloat16), layers=which).decode_tile(z) - exact).square().mean().sqrt().item()
        for which in ("whole", layers)
    ]
    assert errors[1] < 1.1 * errors[0]  # two draws of the same rounding: they differ by some percent


def test_a_large_mean_does_not_cost_a_norm_its_precision():
    norm = torch.nn.GroupNorm(2, 4, eps=1e-6)
    x = 30.0 + torch.randn(1, 4, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    out = torch.empty_like(x)
    with torch.no_grad():
        pieces._activation(norm, x)(0, 16, out)
        expected = torch.nn.functional.silu(norm.double()(x.double()))
    assert difference(out.double(), expected) < 3e-4  # 2^-23 of 30^2 is 1e-4 of the variance


@pytest.mark.parametrize("level", [0, 1, 2])
def test_folded_upsampling_is_upsampling_and_convolution(level):
    layer = new_network().decoder.up_blocks[level].upsamplers[0]
    x = torch.randn(2, layer.conv.conv.in_channels, 3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        expected = layer(x)
    assert expected.shape[2:] == ((5 if level else 3), 8, 10)
    assert difference(folded.upsample_folded(layer, x), expected) < EXACT


@pytest.mark.parametrize(("level", "products"), [(0, 4 * 12), (1, 8 * 8)])
def test_folding_saves_products(level, products):
    """For each source position 4 x 12, not 4 x 27, where images stay; 8 x 8, not 8 x 27, where they double."""
    layer = new_network().decoder.up_blocks[level].upsamplers[0].to("meta")
    conv = layer.conv.conv
    x = torch.empty(1, conv.in_channels, 9, 4, 5, dtype=torch.float64, device="meta")
    with FlopCounterMode(display=False) as counter:
        folded.upsample_folded(layer, x)
    flops = counter.get_flop_counts()["Global"]
    positions = x[0, 0].numel()
    assert flops[torch.ops.aten.convolution] == 2 * conv.in_channels * conv.out_channels * positions * products


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors on the meta device that are alive at once."""

    def __init__(self):
        super().__init__()
        self.live, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def test_pieces_of_a_tile_take_less_memory_at_full_size():
    """The published network at 640 x 608: shapes only. What convolutions need for themselves is not seen here."""
    peaks = {}
    for layers in ("whole", "pieces", "folded"):
        with torch.device("meta"):
            codec = HunyuanCodec(AutoencoderKLHunyuanVideo().half(), layers=layers)
        with LiveBytes() as trace:
            images = codec.decode_tile(torch.empty(1, 16, 5, 80, 76, device="meta"))
        assert images.shape == (1, 3, 17, 640, 608)
        peaks[layers] = trace.peak / 2**30
    assert peaks == {
        "whole": pytest.approx(14.3, abs=0.1),
        "pieces": pytest.approx(5.5, abs=0.1),
        "folded": pytest.approx(5.7, abs=0.1),
    }
