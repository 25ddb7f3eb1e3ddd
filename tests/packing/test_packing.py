import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from longtake.errors import ModelError
from longtake.packing import History, Patchify, RopeAxes, appended, compressed, pack, phases, resized
from longtake.plan import Look, Section, make_plan
from longtake.schedule import Kernel, parse

K1, K2, K4 = Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8)
AXES = RopeAxes(8, 6, 6, patch=K1)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def base():
    conv = nn.Conv3d(4, 12, (1, 2, 2), (1, 2, 2))
    with torch.no_grad():
        conv.weight.copy_(0.2 * drawn(*conv.weight.shape))
        conv.bias.copy_(drawn(12, seed=1))
    return conv


# History


def test_frames_are_read_by_their_absolute_numbers():
    latents = drawn(2, 4, 5, 6, 10)
    history = History()
    history.remember([0], latents[:, :, :1])
    history.remember([7, 8, 9, 10], latents[:, :, 1:])
    assert history.known == {0, 7, 8, 9, 10}
    assert torch.equal(history.read([9, 0]), latents[:, :, [3, 0]])


def test_a_frame_can_be_made_again():
    history = History()
    history.remember([1, 2], drawn(1, 4, 2, 6, 10))
    again = drawn(1, 4, 1, 6, 10, seed=1)
    history.remember([2], again)
    assert torch.equal(history.read([2]), again)


def test_missing_frames_are_an_error_or_zeros():
    latents = drawn(1, 4, 1, 6, 10)
    absent, zeros = History(), History(missing="zeros")
    for history in (absent, zeros):
        history.remember([0], latents)
    with pytest.raises(KeyError):
        absent.read([-1, 0])
    assert torch.equal(zeros.read([-1, 0]), torch.cat([torch.zeros_like(latents), latents], dim=2))
    assert zeros.known == {0}


def test_a_history_refuses_what_does_not_fit():
    history = History()
    with pytest.raises(LookupError, match="start frame"):
        _ = history.shape
    with pytest.raises(ValueError, match="2 frame numbers for 3"):
        history.remember([0, 1], drawn(1, 4, 3, 6, 10))
    history.remember([0], drawn(1, 4, 1, 6, 10))
    with pytest.raises(ValueError, match=r"\(1, 4, 8, 10\)"):
        history.remember([1], drawn(1, 4, 1, 8, 10))


# Patchify

kernels = st.tuples(st.integers(1, 4), st.sampled_from([2, 4, 6]), st.sampled_from([2, 4, 8])).map(lambda k: Kernel(*k))


@settings(deadline=None, max_examples=25)
@given(kernel=kernels, t=st.integers(1, 9), h=st.integers(1, 6), w=st.integers(1, 6))
def test_tokens_are_as_many_as_the_kernel_says(kernel, t, h, w):
    tokens = Patchify(base(), [kernel])(drawn(1, 4, t, 2 * h, 2 * w), kernel)
    assert tokens.shape == (1, kernel.tokens(t, 2 * h, 2 * w), 12)


@settings(deadline=None, max_examples=25)
@given(kernel=kernels, t=st.integers(1, 3), h=st.integers(1, 3), w=st.integers(1, 3))
def test_fresh_weights_see_the_average_pooled_latents(kernel, t, h, w):
    pool = (kernel.t, kernel.h // 2, kernel.w // 2)
    frames = drawn(2, 4, t * kernel.t, h * kernel.h, w * kernel.w)
    conv = base()
    with torch.no_grad():
        expected = conv(nn.functional.avg_pool3d(frames, pool)).flatten(2).transpose(1, 2)
        torch.testing.assert_close(Patchify(conv, [kernel])(frames, kernel), expected, atol=1e-5, rtol=0)


def test_frames_that_do_not_fill_a_kernel_repeat_their_last_ones():
    patchify, frames = Patchify(base(), [K4]), drawn(1, 4, 5, 6, 10)
    t, h, w = (torch.arange(n).clamp(max=m - 1) for n, m in ((8, 5), (8, 6), (16, 10)))
    assert torch.equal(patchify(frames, K4), patchify(frames[:, :, t][:, :, :, h][..., w], K4))


def test_each_kernel_has_weights_of_its_own():
    conv = base()
    patchify = Patchify(conv, [K2, K1, K1])
    assert set(patchify.state_dict()) == {f"proj.{k}.{w}" for k in ("k1h2w2", "k2h4w4") for w in ("weight", "bias")}
    with torch.no_grad():
        patchify.proj["k1h2w2"].weight.zero_()
    assert conv.weight.abs().max() > 0


def test_history_can_have_fewer_channels_than_the_model():
    conv = nn.Conv3d(9, 12, (1, 2, 2), (1, 2, 2))
    patchify, frames = Patchify(conv, [K1], channels=4), drawn(1, 4, 2, 6, 10)
    padded = torch.cat([frames, torch.zeros(1, 5, 2, 6, 10)], dim=1)
    torch.testing.assert_close(patchify(frames, K1), conv(padded).flatten(2).transpose(1, 2))


def test_a_kernel_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(ModelError, match=r"k1h3w2 .* \(1, 2, 2\)"):
        Patchify(base(), [Kernel(1, 3, 2)])


def test_a_kernel_without_weights_is_named():
    with pytest.raises(ModelError, match="no history weights for kernel k8h16w16; it has k1h2w2, k4h8w8"):
        Patchify(base(), [K4, K1])(drawn(1, 4, 1, 6, 10), Kernel(8, 16, 16))


# Phases


@settings(deadline=None, max_examples=25)
@given(kernel=kernels, t=st.integers(1, 6), h=st.integers(1, 5), w=st.integers(1, 5), start=st.integers(-3, 500))
def test_phases_are_those_of_the_full_grid_average_pooled(kernel, t, h, w, start):
    positions = tuple(range(start, start + t))
    full = phases(positions, 2 * h, 2 * w, K1, AXES)
    pool = (kernel.t, kernel.h // 2, kernel.w // 2)
    pooled = phases(positions, 2 * h, 2 * w, kernel, AXES)
    for ours, whole in ((pooled.cos, full.cos), (pooled.sin, full.sin)):
        grid = whole.double().view(1, t, h, w, 20).permute(0, 4, 1, 2, 3)
        pad = (0, -w % pool[2], 0, -h % pool[1], 0, -t % pool[0])
        expected = nn.functional.avg_pool3d(nn.functional.pad(grid, pad, mode="replicate"), pool).flatten(2)[0].T
        torch.testing.assert_close(ours, expected.float(), atol=1e-6, rtol=0)


def test_phases_are_pairs_on_the_unit_circle_in_float32():
    table = phases((0, 5, 1000.5), 6, 10, K1, AXES)
    assert table.cos.dtype == torch.float32
    torch.testing.assert_close(table.cos**2 + table.sin**2, torch.ones(45, 20))
    assert torch.equal(table.cos[:, ::2], table.cos[:, 1::2])


def test_phases_depend_on_positions_only_through_their_difference():
    """Rotated queries and keys meet at an angle of (position - position) times frequency."""

    def meet(a, b):
        p, q = phases((a,), 2, 2, K1, AXES), phases((b,), 2, 2, K1, AXES)
        return p.cos * q.cos + p.sin * q.sin

    torch.testing.assert_close(meet(3, 10), meet(103, 110), atol=1e-5, rtol=0)


# Pack


def section(*sees):
    return Section(index=3, frames=(28, 29), positions=(28, 29), sees=sees)


def known(batch=2):
    history = History()
    history.remember(range(28), drawn(batch, 4, 28, 6, 10))
    return history


def test_packed_tokens_follow_the_order_of_the_looks():
    patchify, history = Patchify(base(), [K1, K2, K4]), known()
    looks = (
        Look((0,), K1, (0,)),
        Look(tuple(range(9, 25)), K4, tuple(range(9, 25))),
        Look((25, 26), K2, (25, 26)),
        Look((27,), K1, (27,)),
    )
    packed = pack(section(*looks), history, patchify, AXES)
    parts = [patchify(history.read(look.frames), look.kernel) for look in looks]
    assert torch.equal(packed.tokens, torch.cat(parts, 1))
    assert packed.tokens.shape[1] == len(packed.cos) == len(packed.sin) == 15 + 4 * 2 + 6 + 15
    assert torch.equal(packed.cos[:15], phases((0,), 6, 10, K1, AXES).cos)
    assert torch.equal(packed.sin[-15:], phases((27,), 6, 10, K1, AXES).sin)
    assert torch.equal(packed.target_cos, phases((28, 29), 6, 10, K1, AXES).cos)


def test_a_section_that_sees_nothing_packs_no_tokens():
    packed = pack(section(), known(), Patchify(base(), [K1]), AXES)
    assert packed.tokens.shape == (2, 0, 12)
    assert packed.cos.shape == packed.sin.shape == (0, 20)
    assert packed.target_cos.shape == (30, 20)


def test_a_section_of_another_size_sees_the_same_and_stands_on_a_grid_of_its_own():
    seen, patchify = section(Look((25, 26), K2, (25, 26))), Patchify(base(), [K2])
    whole = pack(seen, known(), patchify, AXES)
    small = resized(whole, seen, 4, 6, AXES)
    assert small.tokens is whole.tokens
    assert small.cos is whole.cos
    own = phases((28, 29), 4, 6, K1, AXES)
    assert torch.equal(small.target_cos, own.cos)
    assert torch.equal(small.target_sin, own.sin)


def test_absent_frames_cost_nothing_and_zeros_cost_their_tokens():
    patchify = Patchify(base(), [K1, K4])
    start = drawn(1, 4, 1, 6, 10)
    absent, zeros = History(), History(missing="zeros")
    for history in (absent, zeros):
        history.remember([0], start)
    few = section(Look((0,), K1, (19,)))
    many = section(Look(tuple(range(-16, 0)), K4, tuple(range(1, 17))), *few.sees)
    a, z = pack(few, absent, patchify, AXES), pack(many, zeros, patchify, AXES)
    assert a.tokens.shape[1] == 15
    assert z.tokens.shape[1] == 15 + 8
    assert torch.equal(z.tokens[:, 8:], a.tokens)
    bias = patchify.proj["k4h8w8"].bias
    torch.testing.assert_close(z.tokens[:, :8], bias.expand(1, 8, -1))  # zeros leave the bias alone


def test_history_is_packed_in_the_precision_of_the_weights():
    packed = pack(section(Look((0,), K1, (0,))), known(), Patchify(base(), [K1]).bfloat16(), AXES)
    assert packed.tokens.dtype == torch.bfloat16
    assert packed.cos.dtype == packed.target_sin.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("td_f16k4f2k2f1k1_g9", "vanilla"),
        ("f1k1_x_f16k4f2k2f1k1_g9", "vanilla"),
        ("ta_f1k1_x_f16k4f2k2f1k1_g9", "vanilla"),
        ("tc_f8k2f1k1_g4", "vanilla"),
        ("f1k1_x_g9_f1k1f2k2f16k4_td", "inverted"),
        ("f1k1_x_g9_f1k1f2k2f16k4_ta", "inverted"),
        ("f1k1_x_g5_f1k1f2k2_tc", "inverted"),
    ],
)
@pytest.mark.parametrize("missing", ["absent", "zeros"])
def test_every_section_of_a_plan_packs_to_the_tokens_it_says(name, order, missing):
    schedule = parse(name)
    plan = make_plan(schedule, 1 + 5 * schedule.generated, order=order, missing=missing)
    patchify, history = Patchify(base(), schedule.kernels), History(missing)
    history.remember([0], drawn(1, 4, 1, 6, 10))
    with torch.no_grad():
        for section in plan.sections:
            packed = pack(section, history, patchify, AXES)
            tokens = sum(look.tokens(6, 10) for look in section.sees)
            assert packed.tokens.shape == (1, tokens, 12)
            assert packed.cos.shape == packed.sin.shape == (tokens, 20)
            assert packed.target_cos.shape == (schedule.generated * 15, 20)
            history.remember(section.frames, drawn(1, 4, schedule.generated, 6, 10, seed=section.index))
    assert history.known == set(range(plan.frames))


def test_a_token_is_at_the_mean_noise_level_of_the_frames_that_it_covers():
    patchify, history = Patchify(base(), [K1, K4]), History()
    history.remember([0], drawn(2, 4, 1, 6, 10), exact=True)
    sigma = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]])
    history.remember(range(1, 7), drawn(2, 4, 6, 6, 10), sigma=sigma)
    looks = Look((0,), K1, (0,)), Look(tuple(range(1, 7)), K4, tuple(range(1, 7)))
    packed = pack(section(*looks), history, patchify, AXES)
    assert packed.sigma.shape == packed.tokens.shape[:2]
    assert torch.equal(packed.sigma[:, :15], torch.zeros(2, 15))
    # One row and two columns of k4; the last token covers frames 5 and 6, and 6 twice more.
    expected = torch.tensor([[0.3, 0.3, 0.95, 0.95], [0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(packed.sigma[:, 15:], expected)


def test_a_frame_that_is_made_again_is_clean_again():
    history = History()
    history.remember([1, 2], drawn(1, 4, 2, 6, 10), sigma=torch.tensor([[0.3, 0.4]]))
    history.remember([2], drawn(1, 4, 1, 6, 10))
    torch.testing.assert_close(history.levels([1, 2, 1]), torch.tensor([[0.3, 0.0, 0.3]]))


@pytest.mark.parametrize(("tail", "tokens"), [("ta", 7), ("tc", 1)])
def test_a_tail_is_at_the_noise_level_of_what_it_stands_for(tail, tokens):
    patchify, history = Patchify(base(), [K4]), History()
    sigma = torch.linspace(0.0, 0.6, 7)[None]
    history.remember(range(1, 8), drawn(1, 4, 7, 6, 10), sigma=sigma)
    packed = pack(section(Look(tuple(range(1, 8)), K4, tuple(range(1, 8)), tail=tail)), history, patchify, AXES)
    expected = sigma if tail == "ta" else torch.tensor([[0.3]])
    assert packed.sigma.shape == (1, tokens)
    torch.testing.assert_close(packed.sigma, expected)


# Tail


def test_an_appended_tail_has_a_token_for_each_large_pixel_of_each_frame():
    tail = drawn(1, 4, 3, 40, 32)
    patchify = Patchify(base(), [K4])
    tokens = patchify(appended(tail, K4), K4)
    assert tokens.shape == (1, 3 * 2, 12)
    whole = tail[:, :, :, :32].mean((3, 4))
    expected = base()(whole[..., None, None].expand(-1, -1, -1, 2, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens[:, ::2], expected, atol=1e-4, rtol=0)  # sums of 1,024 in float32


def test_a_compressed_tail_is_one_token():
    tail = drawn(2, 4, 7, 6, 10)
    tokens = Patchify(base(), [K4])(compressed(tail, K4), K4)
    expected = base()(tail.mean((2, 3, 4))[..., None, None, None].expand(-1, -1, 1, 2, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)


def test_a_tail_is_packed_with_the_mean_phases_of_what_it_stands_for():
    patchify, history = Patchify(base(), [K4]), known()
    frames = tuple(range(1, 8))
    mean = phases(frames, 6, 10, K1, AXES).cos.view(7, 15, 20).mean(0)
    compress = pack(section(Look(frames, K4, frames, tail="tc")), history, patchify, AXES)
    torch.testing.assert_close(compress.cos, mean.mean(0, keepdim=True))
    append = pack(section(Look(frames, K4, (3,) * 7, tail="ta")), history, patchify, AXES)
    assert append.tokens.shape == (2, 7, 12)
    assert torch.equal(append.cos, append.cos[:1].expand(7, -1))  # one position for all: clamped gaps
