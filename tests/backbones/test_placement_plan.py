"""Bytes of the 13 B model, against the recorded ones and against what is allocated."""

import weakref

import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel, WanTransformer3DModel
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longtake.backbones.placement import PROFILES, PromptInputs, choose, place, stream_blocks, tabulate
from longtake.backbones.placement.layout import live_tensors, repeated_blocks
from longtake.backbones.placement.plan import RESERVE, Profile, widths
from longtake.errors import ModelError

TOKENS = 18485  # 9 latents of 640 x 608, FramePack's history, 729 image tokens, 256 of text
GIB = 2**30
PROFILE = {profile.name: profile for profile in PROFILES}


@pytest.fixture(scope="module")
def full():
    with torch.device("meta"):
        transformer = HunyuanVideoFramepackTransformer3DModel(has_image_proj=True, has_clean_x_embedder=True)
    return transformer.to(torch.bfloat16)


def wan(**shape):
    with torch.device("meta"):
        return WanTransformer3DModel(**shape).to(torch.bfloat16)


def test_the_full_model_has_its_published_tensors(full):
    assert len(full.state_dict()) == 1274
    assert round(sum(p.numel() for p in full.parameters()) / 1e9, 3) == 12.874


@pytest.mark.parametrize(
    ("name", "moved"),
    [("streamed", 24.9), ("streamed-tables", 18.1), ("streamed-fp8", 12.5), ("streamed-tables-fp8", 9.1)],
)
def test_a_step_transfers_the_recorded_bytes(full, name, moved):
    placement = place(full, TOKENS, PROFILE[name])
    assert round(placement.transfer / 1e9, 1) == moved
    exact = sum(p.numel() for block in repeated_blocks(full) for p in block.parameters())
    if name == "streamed":
        assert 2 * exact <= placement.pinned <= 1.05 * 2 * exact


def test_resident_weights_are_the_recorded_ones(full):
    assert round(place(full, TOKENS, PROFILE["resident"]).weights / GIB, 1) == 24.0
    assert round(place(full, TOKENS, PROFILE["resident"]).device / GIB, 1) == 26.0  # the peak measured on an H100
    assert round(place(full, TOKENS, PROFILE["resident-tables"]).weights / 1e9, 1) == 18.2
    rest = place(full, TOKENS, PROFILE["streamed"])
    assert round(rest.weights / 1e9, 2) == round(1.36 + 0.83, 2)  # two double blocks, and what is no block


def test_tables_bring_the_device_under_three_and_a_half_gib_and_staging_the_pinned_host_under_four(full):
    staged = place(full, TOKENS, PROFILE["staged-tables"])
    assert staged.pinned < 4 * GIB
    assert staged.pageable > 24.5e9  # all that is not pinned and not on the device: pages of the weights' files
    assert (
        place(full, TOKENS, PROFILE["streamed-tables"]).device
        < 3.4 * GIB
        < place(full, TOKENS, PROFILE["streamed"]).device
    )


@pytest.mark.parametrize(
    ("device", "pinned", "name"),
    [(80, 64, "resident"), (24, 64, "resident-tables"), (8, 64, "streamed-tables"), (6, 12, "staged-tables")],
)
def test_the_first_profile_that_fits_is_chosen(full, device, pinned, name):
    assert choose(full, TOKENS, device * GIB, pinned * GIB).profile.name == name


def test_a_lossy_profile_is_chosen_only_when_it_may_be(full):
    assert choose(full, TOKENS, 6 * GIB, 12 * GIB, lossy=True).profile.name == "streamed-tables-fp8"


def test_what_fits_nowhere_is_refused_with_what_would(full):
    with pytest.raises(
        ModelError,
        match=r"18485 tokens .* 2\.0 GiB .*: streamed-tables would do with 3\.0 GiB \(2\.0 GiB .* and 16\.9 GiB",
    ):
        choose(full, TOKENS, 2 * GIB, 32 * GIB)
    with pytest.raises(ModelError, match=r"staged-tables would do with .* and 0\.8 GiB"):
        choose(full, TOKENS, 6 * GIB, GIB // 2)
    with pytest.raises(ModelError, match=r"staged would do"):
        choose(wan(num_layers=8), TOKENS, 5 * GIB, GIB // 2)  # there are no tables for it


def test_more_tokens_take_more_and_other_constants_are_taken(full):
    profile = PROFILE["streamed"]
    one, two = (place(full, n, profile) for n in (TOKENS, 2 * TOKENS))
    assert two.activations - RESERVE == 2 * (one.activations - RESERVE)
    assert place(full, TOKENS, profile, per_token=9.0).activations - RESERVE == (one.activations - RESERVE) // 2
    three = place(full, TOKENS, Profile("three", "streamed", slots=3))
    assert three.weights - one.weights == 2 * sum(p.numel() for p in full.transformer_blocks[0].parameters())


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that some tensor made inside still has."""

    def __init__(self):
        super().__init__()
        self.users, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
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


class Fused(TorchFunctionMode):
    """Attention that makes nothing but its result."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.scaled_dot_product_attention:
            return torch.empty_like(kwargs["query"])
        return func(*args, **(kwargs or {}))


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def fullest(block, inputs):
    with Live() as live, Fused(), torch.no_grad():
        block(*inputs())
    return live.peak


def hunyuan_inputs(width):
    phases = [empty(17500, 128, dtype=torch.float32) for _ in range(2)]
    return empty(1, 17500, width), empty(1, TOKENS - 17500, width), empty(1, width), None, tuple(phases)


def wan_inputs(width):
    phases = [empty(1, TOKENS, 1, 128, dtype=torch.float32) for _ in range(2)]
    return empty(1, TOKENS, width), empty(1, 512, width), empty(1, 6, width, dtype=torch.float32), tuple(phases)


def test_activations_are_those_that_live_at_the_fullest_moment(full):
    double = fullest(full.transformer_blocks[0], lambda: hunyuan_inputs(3072))
    single = fullest(full.single_transformer_blocks[0], lambda: hunyuan_inputs(3072))
    assert [round(peak / 1e9, 2) for peak in (double, single)] == [1.33, 2.02]  # as recorded
    estimate = place(full, TOKENS, PROFILE["streamed"]).activations - RESERVE
    assert single <= estimate <= 1.05 * single


@pytest.mark.parametrize(("heads", "mlp"), [(12, 8960), (40, 13824)])  # 1.3 B and 14 B
def test_activations_of_wan_too(heads, mlp):
    transformer, width = wan(num_attention_heads=heads, ffn_dim=mlp, num_layers=1), 128 * heads
    for name, parameter in transformer.blocks[0].named_parameters():
        if name.startswith(("norm1", "norm2", "norm3", "scale_shift_table")):  # diffusers keeps them so
            parameter.data = parameter.data.float()
    peak = fullest(transformer.blocks[0], lambda: wan_inputs(width))
    assert peak <= TOKENS * width * 2 * widths(transformer) <= 1.1 * peak


@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("storage", [None, torch.float8_e4m3fn])
@pytest.mark.parametrize("host", ["pinned", "staged"])
def test_the_plan_is_what_placing_takes(host, storage, tables):
    shape = {"num_attention_heads": 2, "attention_head_dim": 10, "rope_axes_dim": (2, 4, 4), "num_layers": 1}
    transformer = HunyuanVideoTransformer3DModel(
        **shape, num_single_layers=2, num_refiner_layers=1, text_embed_dim=12, pooled_projection_dim=6
    )
    plan = place(transformer, 100, Profile("mine", "streamed", tables, host, storage, slots=3))
    device = torch.device("cpu")
    if tables:
        prompt = PromptInputs(torch.randn(1, 3, 12), torch.ones(1, 3, dtype=torch.bool), torch.randn(1, 6))
        tabulate(transformer, device, torch.tensor([1000.0]), [prompt], torch.tensor([6000.0]))
    streaming = stream_blocks(transformer, device, slots=3, host=host, storage=storage)
    in_blocks = {id(p) for block in repeated_blocks(transformer) for p in block.parameters()}
    resident = sum(tensor.nbytes for _, tensor in live_tensors(transformer) if id(tensor) not in in_blocks)
    assert plan.weights == streaming.device_bytes + resident
    assert plan.pinned == streaming.pinned_bytes
