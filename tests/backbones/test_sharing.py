"""Two processes on the CPU: what one computes alone with all tokens, two compute with half of them each."""

import multiprocessing
import os

import pytest
import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from PIL import Image
from torch import distributed

from longtake.backbones import load_backbone, wan
from longtake.backbones.attention import use_kernel
from longtake.backbones.caches import install_cache
from longtake.backbones.hunyuan import network as hunyuan
from longtake.backbones.hunyuan.blocks import fuse_blocks
from longtake.backbones.hunyuan.conditioning import HunyuanConditioning, concatenate
from longtake.backbones.parallel import COMPILE_OPTIONS, Crew, share_sequence
from longtake.backbones.placement import PromptInputs, stream_blocks, tabulate
from longtake.backbones.rotation import rotate_whole_tensors
from longtake.backbones.seams import install_seams
from longtake.errors import ModelError
from longtake.packing import History, Patchify, pack
from longtake.pipeline import Run, generate
from longtake.pipeline.request import read_request
from longtake.plan import Look, Section
from longtake.schedule import Kernel

K1, K2, K4 = Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8)
HEIGHT, WIDTH = 6, 10  # latents: 15 tokens a frame, 6 and 2 through the larger kernels
ODD = Section(  # 3 x 15 of its own, 15 + 4 x 2 + 6 + 15 of history: 89 tokens
    index=2,
    frames=(20, 21, 22),
    positions=(20, 21, 22),
    sees=(
        Look((0,), K1, (0,)),
        Look(tuple(range(1, 17)), K4, tuple(range(1, 17))),
        Look((17, 18), K2, (17, 18)),
        Look((19,), K1, (19,)),
    ),
)
BARE = Section(index=0, frames=(0, 1), positions=(0, 1), sees=())  # 30 tokens
HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 6,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}
IMAGES = {"has_clean_x_embedder": True, "has_image_proj": True, "image_proj_dim": 12}
WAN = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 6,
    "attention_head_dim": 20,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 2,
}
SIGMA, GUIDANCE = 0.5, 6.0
# Matrices of fewer rows may add their products in another order: some roundings of numbers near one.
ROUNDING = {"atol": 3e-5, "rtol": 1e-5}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomized(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def history(batch):
    known = History()
    known.remember(range(20), drawn(batch, 4, 20, HEIGHT, WIDTH, seed=3))
    return known


def told(lengths, image=True):
    """Prompts of so many tokens, each."""
    return concatenate(
        [
            HunyuanConditioning(
                text=drawn(1, length, 16, seed=10 + k),
                mask=torch.ones(1, length, dtype=torch.bool),
                pooled=drawn(1, 8, seed=30 + k),
                image=drawn(1, 5, 12, seed=50 + k) if image else None,
                guidance=GUIDANCE,
            )
            for k, length in enumerate(lengths)
        ]
    )


class Hunyuan:
    """A tiny network of HunyuanVideo's classes, and its velocity."""

    def __init__(self, framepack=True, heads=6, **more):
        shape = HUNYUAN | {"num_attention_heads": heads} | more
        if framepack:
            self.transformer = HunyuanVideoFramepackTransformer3DModel(**shape, **IMAGES)
        else:
            self.transformer = HunyuanVideoTransformer3DModel(**shape)
            hunyuan.begin_history(self.transformer, [K1, K2, K4])
            hunyuan.add_image_projection(self.transformer, 12)
        randomized(self.transformer)
        self.seams = hunyuan.install(self.transformer)

    @torch.inference_mode()
    def velocity(self, lengths=(8,), section=ODD, image=True):
        batch, patchify = len(lengths), hunyuan.history_patchify(self.transformer)
        packed = pack(section, history(batch), patchify, hunyuan.rope_axes(self.transformer))
        x, sigma = drawn(batch, 4, len(section.frames), HEIGHT, WIDTH, seed=1), torch.full((batch,), SIGMA)
        return hunyuan.velocity(self.transformer, self.seams, x, sigma, told(lengths, image), packed)


class Wan:
    """A tiny Wan, and its velocity."""

    def __init__(self, heads=6):
        self.transformer = WanTransformer3DModel(**WAN | {"num_attention_heads": heads})
        self.transformer.history_patch_embed = Patchify(self.transformer.patch_embedding, [K1, K2, K4])
        randomized(self.transformer)
        self.seams = install_seams(self.transformer, wan.SEAMS)
        rotate_whole_tensors(self.transformer, self.seams)

    @torch.inference_mode()
    def velocity(self, history_time="same", attention="full", section=ODD, batch=2):
        packed = pack(section, history(batch), self.transformer.history_patch_embed, wan.rope_axes(self.transformer))
        x, text = drawn(batch, 4, len(section.frames), HEIGHT, WIDTH, seed=1), drawn(batch, 7, 16, seed=2)
        sigma = torch.linspace(0.3, 0.9, batch)
        return wan.velocity(self.transformer, self.seams, x, sigma, text, packed, history_time, attention)


def serve(rank, meeting, asked, given):
    """One process of two: does what it is asked until it is asked for nothing."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    for task, arguments in iter(asked.get, None):
        try:
            given.put(task(distributed.group.WORLD, *arguments))
        except Exception as error:
            given.put(error)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A function (task, *arguments) that gives what `task(group, *arguments)` gives in each of two processes."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    context = multiprocessing.get_context("spawn")
    queues = [(context.Queue(), context.Queue()) for _ in range(2)]
    processes = [context.Process(target=serve, args=(rank, meeting, *queues[rank])) for rank in range(2)]
    for process in processes:
        process.start()

    def run(task, *arguments):
        for asked, _ in queues:
            asked.put((task, arguments))
        found = []
        for _, given in queues:
            found.append(given.get(timeout=240))
            if isinstance(found[-1], Exception):  # the other process may wait for this one for ever
                for process in processes:
                    process.kill()
                raise found[-1]
        return found

    yield run
    for asked, _ in queues:
        asked.put(None)
    for process in processes:
        process.join(timeout=60)


def compared(group, build, arrange, calls):
    """The velocities of one process, then those of the group; `arrange` changes the network before."""
    made = build()
    if arrange is not None:
        arrange(made)
    alone = [made.velocity(**call) for call in calls]
    share_sequence(made.transformer, group)
    return [velocity.numpy() for velocity in alone], [made.velocity(**call).numpy() for call in calls]


def check(both, build, *calls, arrange=None):
    """All velocities are those of one process, in both; and both have the same bits."""
    (alone, first), (_, second) = both(compared, build, arrange, calls)
    for expected, ours, others in zip(alone, first, second, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(expected), **ROUNDING)
        assert (ours == others).all()
    assert len({velocity.tobytes() for velocity in alone}) == len(calls)


def plain():
    return Hunyuan(framepack=False)


def test_framepack_with_image_tokens_and_odd_counts_of_everything(both):
    # 89 tokens and 13 of text; 89 and 12; 30 and 13; a text without an image.
    calls = [{"lengths": (8,)}, {"lengths": (7,)}, {"section": BARE}, {"lengths": (3,), "image": False}]
    check(both, Hunyuan, *calls)


@pytest.mark.parametrize("build", [Hunyuan, plain])
def test_texts_of_several_lengths_are_told_apart_by_the_same_mask(both, build):
    check(both, build, {"lengths": (8, 3)}, {"lengths": (4, 7, 1)}, {"lengths": (2, 2)})


def test_plain_hunyuan_always_masks_and_shares_all_the_same(both):
    check(both, plain, {"lengths": (8,)}, {"lengths": (5,), "image": False})


def test_wan_whose_history_is_told_a_time_of_its_own(both):
    check(both, Wan, {}, {"history_time": "clean"}, {"section": BARE}, {"batch": 1})


def test_history_that_is_blind_stays_blind(both):
    check(both, Wan, {"attention": "causal"}, {"attention": "causal", "history_time": "clean"})


def of_two_heads():
    return Hunyuan(heads=2)


def a_wan_of_two_heads():
    return Wan(heads=2)


@pytest.mark.parametrize("build", [of_two_heads, a_wan_of_two_heads])
def test_one_head_for_each_goes_in_one_piece(both, build):
    check(both, build, {})


class SharedFiles:
    """Mailboxes of processes: what devices have that reach each other's memory."""

    def __init__(self, group, folder):
        self.group, self.folder, self.met = group, folder, 0

    def of(self, count, dtype):
        return [torch.from_file(f"{self.folder}/{r}", True, count, dtype=dtype) for r in range(self.group.size())]

    def meet(self):
        self.met += 1
        distributed.barrier(self.group)


def by_mail(group, folder, build, calls):
    made, mailboxes = build(), SharedFiles(group, folder)
    alone = [made.velocity(**call) for call in calls]
    sharing = share_sequence(made.transformer, group)
    sharing._exchange.open = lambda device: mailboxes
    return [v.numpy() for v in alone], [made.velocity(**call).numpy() for call in calls], mailboxes.met


@pytest.mark.parametrize(
    ("build", "calls", "attentions"),
    [
        (Hunyuan, [{"lengths": (8,)}, {"lengths": (7,)}, {"section": BARE}], 12),
        (plain, [{"lengths": (4, 7, 1)}], 4),
        (Wan, [{}, {"attention": "causal"}], 4),
        (of_two_heads, [{}], 4),
    ],
)
def test_devices_that_reach_each_others_memory_write_into_it(both, tmp_path, build, calls, attentions):
    (alone, first, met), (_, second, _) = both(by_mail, tmp_path, build, calls)
    assert met == 2 * attentions
    for expected, ours, others in zip(alone, first, second, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(expected), **ROUNDING)
        assert (ours == others).all()


def tabulated(made):
    c = told((8,))
    steps = hunyuan.as_told(torch.tensor([1.0, SIGMA]))
    prompt = PromptInputs(c.text, c.mask, c.pooled)
    tabulate(made.transformer, torch.device("cpu"), steps, [prompt], hunyuan.as_told(torch.tensor([GUIDANCE])))


def in_tiles(made):
    use_kernel(made.transformer, "tiled")


def streamed(made):
    stream_blocks(made.transformer, torch.device("cpu"))


def fused(made):
    fuse_blocks(made.transformer, made.seams)


@pytest.mark.parametrize("arrange", [tabulated, in_tiles, streamed, fused])
def test_what_was_done_to_the_network_before_still_holds(both, arrange):
    check(both, Hunyuan, {"lengths": (8,)}, arrange=arrange)


def arranged_after(group):
    made = Hunyuan()
    alone = made.velocity()
    sharing = share_sequence(made.transformer, group)
    use_kernel(made.transformer, "math")
    streaming = stream_blocks(made.transformer, torch.device("cpu"))
    tabulated(made)
    together = made.velocity()
    streaming.remove()
    sharing.remove()
    processors = [m.processor for m in made.transformer.modules() if hasattr(m, "processor")]
    kernels = {p._attention_backend for p in processors if isinstance(p, HunyuanVideoAttnProcessor2_0)}
    return alone.numpy(), together.numpy(), made.velocity().numpy(), [kernel.value for kernel in kernels]


def test_what_is_done_to_the_network_afterwards_holds_too_and_stays_when_the_sharing_ends(both):
    for alone, together, after, kernels in both(arranged_after):
        torch.testing.assert_close(torch.from_numpy(together), torch.from_numpy(alone), **ROUNDING)
        torch.testing.assert_close(torch.from_numpy(after), torch.from_numpy(alone), **ROUNDING)
        assert kernels == ["_native_math"]


def given_back(group, build):
    made = build()
    before = made.velocity()
    calls = {name: {**vars(module)} for name, module in made.transformer.named_modules()}
    share_sequence(made.transformer, group).remove()
    same = all(vars(m).keys() == calls[name].keys() for name, m in made.transformer.named_modules())
    return same and torch.equal(made.velocity(), before)


@pytest.mark.parametrize("build", [Hunyuan, Wan])
def test_a_network_is_given_back_as_it_came(both, build):
    assert both(given_back, build) == [True, True]


def refused(group, build, act):
    try:
        act(build(), group)
    except ModelError as error:
        return str(error)
    return ""


def share(made, group):
    share_sequence(made.transformer, group)


def share_twice(made, group):
    share(made, group)
    share(made, group)


def share_then_compile(made, group):
    share(made, group)
    made.transformer.transformer_blocks[1].compile()


def share_then_learn(made, group):
    share(made, group)
    made.transformer.blocks[0](torch.ones(1, 4, 40, requires_grad=True))


def share_one_word(made, group):
    share(made, group)
    made.velocity(lengths=(1,), image=False)


def share_an_attention_of_its_own(made, group):
    class Mine(HunyuanVideoAttnProcessor2_0):
        pass

    made.transformer.transformer_blocks[0].attn.set_processor(Mine())
    share(made, group)


def share_then_skip_steps(made, group):
    share(made, group)
    install_cache(made.transformer, "teacache", 0.1, 4)


def skip_steps_then_share(made, group):
    install_cache(made.transformer, "first_block", 0.1, 4)
    share(made, group)


def of_three_heads():
    return Hunyuan(heads=3)


def that_replaces_tokens():
    return Hunyuan(image_condition_type="token_replace")


class CogVideo:
    def __init__(self):
        self.transformer = CogVideoXTransformer3DModel(num_attention_heads=2, attention_head_dim=8, num_layers=1)


@pytest.mark.parametrize(
    ("build", "act", "message"),
    [
        (of_three_heads, share, "3 heads cannot be divided among 2 devices: 1, 3 would do"),
        (that_replaces_tokens, share, "replaces tokens"),
        (CogVideo, share, "CogVideoXTransformer3DModel: the tokens of HunyuanVideo"),
        (Hunyuan, share_twice, "shared already"),
        (Hunyuan, share_then_compile, "compile its blocks, share them again"),
        (Hunyuan, share_then_skip_steps, "a step cache decides by all tokens"),
        (Hunyuan, skip_steps_then_share, "such as a step cache's"),
        (Wan, share_then_learn, "under torch.no_grad()"),
        (Hunyuan, share_one_word, "1 tokens of text and image for 2 devices"),
        (Hunyuan, share_an_attention_of_its_own, "Mine computes attention in a way of its own"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_every_process(both, build, act, message):
    first, second = both(refused, build, act)
    assert message in first
    assert first == second


def together(group):
    """On the first process: alone, then with the other, around what only both can find out is refused."""
    made = Hunyuan()
    alone = [made.velocity(), made.velocity(section=BARE)]
    share_sequence(made.transformer, group)
    crew = Crew(group, torch.device("cpu"))
    crew.call_together(made.transformer, made.seams)
    double = crew.everywhere(made.transformer.proj_out.weight.data.mul_)
    if not crew.leads:
        crew.follow()
        return float(made.transformer.proj_out.weight.sum())
    first = made.velocity()
    with pytest.raises(ModelError, match="1 tokens of text"):
        made.velocity(lengths=(1,), image=False)
    second = made.velocity(section=BARE)
    double(2)
    doubled = made.velocity()
    crew.leave()
    found = [*alone, first, second, doubled]
    return [v.numpy() for v in found], float(made.transformer.proj_out.weight.sum())


def test_a_program_that_only_the_first_process_runs_is_computed_by_both(both):
    ((alone, bare, first, second, doubled), weights), other_weights = both(together)
    torch.testing.assert_close(torch.from_numpy(first), torch.from_numpy(alone), **ROUNDING)
    torch.testing.assert_close(torch.from_numpy(second), torch.from_numpy(bare), **ROUNDING)
    assert weights == other_weights  # the task was done in both
    assert (doubled != first).all()


def generated(group, folder, home):
    """The latents of a video's sections, made alone and together, on the first process."""
    backbone = load_backbone(str(folder), device="cpu", dtype=torch.float32)
    request = read_request({"model": str(folder), "prompt": "a red ball", "image": str(home / "start.png")})

    def sections(name):
        for _ in generate(request, home / f"{name}.mp4", home / name, backbone=backbone):
            pass
        opened = Run.open(home / name)
        return [opened.read_section(section).numpy() for section in opened.config.plan().sections]

    alone = sections("alone") if group.rank() == 0 else None
    share_sequence(backbone.transformer, group)
    crew = Crew(group, torch.device("cpu"))
    crew.call_together(backbone.transformer, backbone.seams)
    if not crew.leads:
        crew.follow()
        return None
    together = sections("together")
    crew.leave()
    return alone, together


def test_a_whole_video_is_made_by_two_processes_of_which_one_writes(both, tiny_backbone_folder, tmp_path):
    Image.new("RGB", (48, 32), (200, 80, 40)).save(tmp_path / "start.png")
    (alone, together), nothing = both(generated, tiny_backbone_folder, tmp_path)
    assert nothing is None
    assert len(alone) > 1
    for expected, ours in zip(alone, together, strict=True):
        # Each section is made from the roundings of those before it.
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def compiled(group):
    made = Hunyuan(num_layers=1, num_single_layers=1)
    alone = [made.velocity(), made.velocity(section=BARE)]
    for block in (*made.transformer.transformer_blocks, *made.transformer.single_transformer_blocks):
        block.compile(backend="eager", fullgraph=True)
    share_sequence(made.transformer, group)
    return [v.numpy() for v in alone], [made.velocity().numpy(), made.velocity(section=BARE).numpy()]


@pytest.mark.compile
def test_compiled_blocks_trade_tokens_without_a_break_in_any_count_of_them(both):
    for alone, shared in both(compiled):
        for expected, ours in zip(alone, shared, strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(expected), **ROUNDING)


@pytest.mark.compile
def test_the_compiler_knows_the_options_that_let_exchanges_overlap():
    torch.compile(torch.sin, options=COMPILE_OPTIONS)
