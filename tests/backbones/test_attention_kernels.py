"""Attention in tiles, against PyTorch's own; kernels by name, on diffusers' own classes."""

import sys
import weakref

import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel, WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longtake.backbones.attention import attend, attend_in_tiles, best_kernel, installed_kernels, use_kernel
from longtake.errors import ModelError

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:Argument aux_data:UserWarning")  # of FlashAttention 4's compiler


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def whole(query, key, value, mask=None):
    """The same in float64 at once."""
    q, k, v = (x.double().transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def inputs(dtype=torch.float32, b=2, n=37, m=29, heads=3, size=8):
    return [drawn(b, length, heads, size, seed=i, dtype=dtype) for i, length in enumerate((n, m, m))]


@pytest.mark.parametrize("limit", [1, 5000, 2**20])  # a row at a time, some rows, all
@pytest.mark.parametrize("shape", [None, (2, 1, 1, 29), (2, 1, 37, 29), (1, 3, 37, 29), (2, 29)])
def test_tiles_are_the_whole(limit, shape):
    query, key, value = inputs()
    mask = None if shape is None else drawn(*shape, seed=5) > -1
    tiled = attend_in_tiles(query, key, value, mask, limit=limit)
    broad = mask[:, None, None] if mask is not None and mask.ndim == 2 else mask
    # Sums of 29 products of numbers near 1 in float32.
    assert torch.allclose(tiled.double(), whole(query, key, value, broad), atol=1e-5)


def test_a_scale_and_numbers_added_to_the_scores_are_obeyed():
    query, key, value = inputs()
    bias = drawn(2, 1, 37, 29, seed=6)
    expected = functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (query, key, value)), attn_mask=bias, scale=0.1
    ).transpose(1, 2)
    assert torch.allclose(attend_in_tiles(query, key, value, bias, scale=0.1, limit=5000), expected, atol=1e-5)


def test_tiles_in_half_precision_are_no_worse_than_the_whole_in_it():
    query, key, value = inputs(torch.bfloat16)
    exact = whole(query, key, value)
    at_once = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
    tiled = attend_in_tiles(query, key, value, limit=5000)
    assert (tiled - exact).norm() <= 1.05 * (at_once - exact).norm()


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that some tensor made inside still has."""

    def __init__(self):
        super().__init__()
        self.users, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_plain_formula_in_tiles_stays_under_the_limit(dtype):
    query, key, value = (x.contiguous() for x in inputs(dtype, b=1, n=600, m=600, heads=4, size=16))
    limit = 2**18
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with Live() as tiled:
            attend_in_tiles(query, key, value, limit=limit)
        with Live() as at_once:
            functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
    one_head = 3 * 600 * 16 * 4  # its query, key and value in float32
    assert tiled.peak <= limit + 4 * query.nbytes + one_head  # inputs and result are counted, too
    assert at_once.peak >= 4 * 600 * 600 * 4 > 5 * tiled.peak


def hunyuan(cls, **more):
    shape = {"num_attention_heads": 2, "attention_head_dim": 10, "rope_axes_dim": (2, 4, 4), "num_layers": 1}
    return cls(
        **shape,
        in_channels=4,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=12,
        pooled_projection_dim=6,
        **more,
    ).eval()


def wan():
    shape = {"num_attention_heads": 2, "attention_head_dim": 20, "ffn_dim": 48, "num_layers": 2}
    return WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=16, freq_dim=16, **shape).eval()


def step(transformer):
    x, time = drawn(2, 4, 2, 4, 6), torch.tensor([500.0, 500.0])
    with torch.no_grad():
        if isinstance(transformer, WanTransformer3DModel):
            return transformer(x, time, drawn(2, 7, 16, seed=1), return_dict=False)[0]
        mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
        return transformer(
            x, time, drawn(2, 7, 12, seed=1), mask, drawn(2, 6, seed=2), guidance=time, return_dict=False
        )[0]


@pytest.mark.parametrize("kernel", ["native", "math", "tiled"])
@pytest.mark.parametrize("build", [wan, lambda: hunyuan(HunyuanVideoTransformer3DModel)])
def test_every_kernel_gives_the_same_and_leaves_other_networks_alone(build, kernel):
    transformer, default = build(), _AttentionBackendRegistry.get_active_backend()[0]
    before = step(transformer)
    use_kernel(transformer, kernel)
    assert torch.allclose(step(transformer), before, atol=1e-5)  # float32 sums in another order
    assert _AttentionBackendRegistry.get_active_backend()[0] == default
    assert {p._attention_backend for p in processors(build())} == {None}


def processors(transformer):
    found = [getattr(module, "processor", None) for module in transformer.modules()]
    return [processor for processor in found if hasattr(processor, "_attention_backend")]


def test_tiles_are_what_computes_when_they_were_asked_for():
    transformer, listed = wan(), list(AttentionBackendName)
    use_kernel(transformer, "tiled")
    use_kernel(transformer, "tiled")
    assert list(AttentionBackendName) == listed
    assert len(processors(transformer)) == 4  # two blocks, self and cross
    (name,) = {processor._attention_backend for processor in processors(transformer)}
    query, key, value = inputs()
    tiled = _AttentionBackendRegistry._backends[name]
    assert torch.equal(tiled(query, key, value), attend_in_tiles(query, key, value))
    with pytest.raises(ModelError, match="no causal form"):
        tiled(query, key, value, is_causal=True)


def test_a_kernel_that_cannot_serve_is_refused():
    with pytest.raises(ModelError, match="sage attention is not installed"):
        use_kernel(wan(), "sage")
    with pytest.raises(ModelError, match="always masks, which flash cannot"):
        use_kernel(hunyuan(HunyuanVideoTransformer3DModel), "flash")
    use_kernel(hunyuan(HunyuanVideoFramepackTransformer3DModel), "flash")  # one sample at a time has no mask


@pytest.mark.parametrize("kernel", installed_kernels(CPU, torch.float32, 8))
def test_every_kernel_of_a_device_attends(kernel):
    # Sums of 29 products of numbers near 1 in float32.
    assert torch.allclose(attend(kernel, *inputs()).double(), whole(*inputs()), atol=1e-5)


def test_a_package_that_lacks_something_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn.cute", None)
    with pytest.raises(ModelError, match=r"flash-attn-4 attention is not installed.*longtake\[flash-attn-4\]"):
        use_kernel(wan(), "flash-attn-4")
    with pytest.raises(ModelError, match="always masks, which flash-attn-4 cannot"):
        use_kernel(hunyuan(HunyuanVideoTransformer3DModel), "flash-attn-4")


def test_the_best_kernel_builds_no_score_matrix_anywhere():
    assert best_kernel(CPU, torch.bfloat16, 128, masked=True) == "native"
    assert best_kernel(torch.device("mps"), torch.float16, 128) == "tiled"


@pytest.mark.compile
def test_tiled_attention_can_be_compiled():
    transformer = wan()
    before = step(transformer)
    use_kernel(transformer, "tiled")
    for block in transformer.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    assert torch.allclose(step(transformer), before, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("masked", [False, True])
def test_the_best_kernel_of_a_gpu_serves_and_agrees(dtype, masked):
    device = torch.device("cuda")
    kernel = best_kernel(device, dtype, 128, masked)
    assert kernel in ("cudnn", "flash", "efficient", "tiled", "flash-attn-4")
    query, key, value = (x.to(device) for x in inputs(dtype, b=1, n=300, m=300, heads=2, size=128))
    mask = torch.arange(300, device=device)[None, None, None] < 250 if masked else None
    if masked:
        backend = {"cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
        heads_first = (x.transpose(1, 2) for x in (query, key, value))
        with sdpa_kernel(backend.get(kernel, SDPBackend.MATH)):
            out = functional.scaled_dot_product_attention(*heads_first, attn_mask=mask).transpose(1, 2)
    else:
        out = attend(kernel, query, key, value)
    # Half a unit in the last place of the result, and as much again of the weights before it.
    exact = whole(query, key, value, mask)
    assert (out - exact).norm() < 4 * max(torch.finfo(dtype).eps, 1e-3) * exact.norm()


@pytest.mark.gpu
def test_every_kernel_of_a_gpu_attends():
    """Queries, keys and values side by side, as one product leaves them; more queries than keys, and fewer."""
    device = torch.device("cuda")
    for kernel in installed_kernels(device, torch.bfloat16, 128):
        query, key, value = drawn(1, 400, 2, 3 * 128, dtype=torch.bfloat16).to(device).chunk(3, dim=3)
        for q, k, v in ((query, key, value), (query, key[:, :77], value[:, :77]), (query[:, :9], key, value)):
            off = attend(kernel, q, k, v) - whole(q, k, v)
            # bf16 has eight bits; sage rounds queries and keys to eight, too
            assert off.norm() < (5e-2 if kernel == "sage" else 1e-2) * whole(q, k, v).norm(), kernel


@pytest.mark.gpu
def test_flash_attention_4_gives_the_same_whole_and_compiled():
    pytest.importorskip("flash_attn.cute")
    shape = {"num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 48, "num_layers": 2}
    kind = {"device": "cuda", "dtype": torch.bfloat16}
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=16, freq_dim=16, **shape).to(**kind)
    given = drawn(1, 4, 4, 8, 8).to(**kind), torch.tensor([500.0], device="cuda"), drawn(1, 7, 16, seed=1).to(**kind)
    made = []
    with torch.no_grad():
        for kernel in ("math", "flash-attn-4"):
            use_kernel(transformer, kernel)
            made.append(transformer(*given, return_dict=False)[0])
        for block in transformer.blocks:
            block.compile(backend="aot_eager", fullgraph=True)
        made.append(transformer(*given, return_dict=False)[0])
    math, flash, compiled = made
    assert (flash - math).norm() < 2e-2 * math.norm()  # bf16 has eight bits
    assert (compiled - flash).norm() < 1e-2 * flash.norm()


@pytest.mark.gpu
def test_a_gpu_attends_in_tiles_within_the_limit():
    device, tokens, limit = torch.device("cuda"), 8192, 64 * 2**20
    query, key, value = (x.to(device) for x in inputs(torch.bfloat16, b=1, n=tokens, m=tokens, heads=4, size=128))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        out = attend_in_tiles(query, key, value, limit=limit)
        peak = torch.cuda.max_memory_allocated() - held
    one_head = 3 * tokens * 128 * 4
    assert peak < limit + query.nbytes + 3 * one_head + 32 * 2**20  # and a workspace; all scores at once are 1 GiB
    at_once = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
    assert (out - at_once).norm() < 1e-2 * at_once.norm()  # bf16 has eight bits
