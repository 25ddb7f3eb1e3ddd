"""One step of the 13 B FramePack transformer: as diffusers has it, by the seams, compiled, tabulated, streamed, in fp8.

    python benchmarks/backbone_13b.py --output out/backbone_13b
    python benchmarks/backbone_13b.py --tiny --device cpu            the same at tiny size, to see that it runs

Weights and inputs are random: speed and memory do not depend on their values. A section of nine frames at 640 x 608
after a long history: 18,485 tokens with 729 of the image and 256 of the text. All arms are measured in this one run, on
the same network; each prints the median of steps that follow each other as in a video, the peak of allocated memory in
them, how far its output is from the first arm's, and how far from a reference in float32, as shares of their spread.
The reference is the same network, its blocks cast one by one. PyTorch chooses the kernel of attention; where
FlashAttention 4 is installed and a video would choose it, another arm and those after it have it. Rows carry the
kernels of a step; those of rows that miss a bar are printed. Prints a table, writes numbers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel
from kernels import kernels_of, print_kernels
from torch import Tensor

from longtake.backbones.attention import FASTER, best_kernel, use_kernel
from longtake.backbones.hunyuan.blocks import fuse_blocks
from longtake.backbones.hunyuan.conditioning import HunyuanConditioning
from longtake.backbones.hunyuan.network import as_told, bring, history_patchify, install, rope_axes, velocity
from longtake.backbones.placement import PromptInputs, compute_in_fp8, settle, stream_blocks, tabulate
from longtake.flow import sigmas
from longtake.packing import History, pack
from longtake.plan import make_plan
from longtake.schedule import parse

FULL = {"has_clean_x_embedder": True, "has_image_proj": True, "image_proj_dim": 1152}
TINY = FULL | {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "num_single_layers": 2, "num_refiner_layers": 1, "mlp_ratio": 2.0, "text_embed_dim": 16,
    "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6), "image_proj_dim": 12,
}  # fmt: skip
SCHEDULE = "f1k1_x_f16k4f2k2f1k1_g9"
STEPS, SHIFT, GUIDANCE = 25, 7.0, 10.0
LOSSLESS = 0.72  # of diffusers' eager step: the bar of resident, lossless rows
OPERATIONS = 503.1e12  # floating-point operations of one step at full size (PyTorch's counter on the meta device)


def main() -> None:
    """Measures everything, prints it, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("out/backbone_13b"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--eager", action="store_true", help="without compiling, which takes a minute")
    parser.add_argument(
        "--unchecked", action="store_true", help="without the reference in float32: 55 GiB and a minute"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        rows = list(measured(options))
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    (options.output / "numbers.json").write_text(json.dumps({"device": name, "rows": rows}))
    for row in rows:
        if row["seconds"] > LOSSLESS * rows[0]["seconds"]:
            print_kernels(row["arm"], row["kernels"])
    print(f"\n{name}\n\n| | s a step | of the first | peak GiB | difference | error |\n" + "| --- " * 6 + "|")
    for row in rows:
        share = row["seconds"] / rows[0]["seconds"]
        cells = f"{row['seconds']:.4f} | {share:.3f} | {row['peak']:.2f} | {row['difference']:.3g} | {row['error']:.4g}"
        print(f"| {row['arm']} | {cells} |")
    if options.device == "cuda":
        rate = matmul_rate(torch.device(options.device))
        print(f"\nmatrix product of 8192: {rate / 1e12:.0f} TFLOP/s; share of it:")
        for row in rows:
            print(f"{row['arm']}: {OPERATIONS / row['seconds'] / rate:.3f}")


def measured(options: argparse.Namespace):
    """A row an arm, each on what the arms before it have made of the network."""
    device = torch.device(options.device)
    transformer = new_transformer(TINY if options.tiny else FULL, device)
    setting = Setting(transformer, device, options.tiny)
    first: list[Tensor] = []
    exact = None if options.unchecked else reference(transformer, lambda: setting.native(torch.float32)).to(device)

    def row(arm: str, call: Callable[[], Tensor]) -> dict:
        output = call().float()
        first.append(output)
        error = float("nan") if exact is None else ((output - exact).norm() / exact.norm()).item()
        seconds, peak = timed(call, device, options.repeats)
        difference = ((output - first[0]).std() / first[0].std()).item()
        print(f"{arm}: {seconds:.4f} s, {peak:.2f} GiB, difference {difference:.3g}, error {error:.4g}", flush=True)
        found = kernels_of(call, device)
        return {
            "arm": arm,
            "seconds": seconds,
            "peak": peak,
            "difference": difference,
            "error": error,
            "kernels": found,
        }

    yield row("diffusers, eager", setting.native)
    yield row("longtake's seams, eager", setting.packed)
    levels = sigmas(STEPS, SHIFT)[:-1].to(device)
    tables = tabulate(
        transformer, device, as_told(levels), [setting.told], as_told(torch.tensor([GUIDANCE])).to(device)
    )
    setting.bring()
    yield row("modulation tables", setting.packed)
    blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    if not options.eager:
        torch._dynamo.config.recompile_limit = 64  # a graph for each kind of block and of input strides
        for block in blocks:
            block.compile()
        yield row("tables, compiled blocks", setting.packed)
        for block in blocks:
            block._compiled_call_impl = None
    fuse_blocks(transformer, setting.seams)
    yield row("tables, fused blocks", setting.packed)
    if best_kernel(device, torch.bfloat16, transformer.config["attention_head_dim"]) == FASTER:
        use_kernel(transformer, FASTER)
        yield row(f"tables, fused blocks, {FASTER}, as all that follow", setting.packed)
    streaming = stream_blocks(transformer, device)
    yield row("tables, fused, streamed blocks", setting.packed)
    print(f"pinned host memory {streaming.pinned_bytes / 2**30:.2f} GiB, tables {tables.bytes / 2**20:.0f} MiB")
    streaming.remove()
    del streaming  # it holds the matrices as they were
    settle(transformer, device)
    compute_in_fp8(transformer, device)
    yield row("tables, fused blocks, fp8 linears", setting.packed)
    streaming = stream_blocks(transformer, device)
    yield row("tables, fused blocks, fp8 linears, streamed", setting.packed)
    print(f"pinned host memory {streaming.pinned_bytes / 2**30:.2f} GiB")


def reference(transformer: HunyuanVideoFramepackTransformer3DModel, call: Callable[[], Tensor]) -> Tensor:
    """The network's result in float32: each block's weights are cast when it is called, all others at once."""
    blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    outside = [parameter for parameter in transformer.parameters() if id(parameter) not in inside]
    before = [parameter.data for parameter in outside]
    for parameter in outside:
        parameter.data = parameter.data.float()
    handles = [handle for block in blocks for handle in casts(block)]
    output = call()
    for parameter, value in zip(outside, before, strict=True):
        parameter.data = value
    for handle in handles:
        handle.remove()
    return output.float().cpu()


def casts(block: torch.nn.Module) -> list:
    """Hooks that let a block compute in float32."""
    home = [parameter.data for parameter in block.parameters()]

    def widen(module, inputs, named):
        for parameter in module.parameters():
            parameter.data = parameter.data.float()

    def restore(module, inputs, output):
        for parameter, value in zip(module.parameters(), home, strict=True):
            parameter.data = value

    return [block.register_forward_pre_hook(widen, with_kwargs=True), block.register_forward_hook(restore)]


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations a second of a large bfloat16 product of random numbers."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds, _ = timed(lambda: [a @ b for _ in range(20)][-1], device, 3)
    return 20 * 2 * 8192**3 / seconds


def new_transformer(config: dict, device: torch.device) -> HunyuanVideoFramepackTransformer3DModel:
    """The network with random weights, made on the device."""
    with torch.device("meta"):
        transformer = HunyuanVideoFramepackTransformer3DModel(**config)
    transformer = transformer.to(torch.bfloat16).to_empty(device=device).eval()
    for parameter in transformer.parameters():
        parameter.normal_(std=0.02)
    return transformer


class Setting:
    """One section after a long history, and the two ways to ask the network about it."""

    def __init__(self, transformer: HunyuanVideoFramepackTransformer3DModel, device: torch.device, tiny: bool) -> None:
        config, kind = transformer.config, {"device": device, "dtype": torch.bfloat16}
        h, w = (16, 12) if tiny else (80, 76)
        c, words, image = config["in_channels"], 7 if tiny else 256, 5 if tiny else 729
        self.transformer = transformer
        self.seams = install(transformer)
        self.x = torch.randn(1, c, 9, h, w, **kind)
        self.sigma = sigmas(STEPS, SHIFT)[10:11]
        self.conditioning = HunyuanConditioning(
            text=torch.randn(1, words, config["text_embed_dim"], dtype=torch.bfloat16),
            mask=torch.ones(1, words, dtype=torch.bool),
            pooled=torch.randn(1, config["pooled_projection_dim"], dtype=torch.bfloat16),
            image=torch.randn(1, image, config["image_proj_dim"], dtype=torch.bfloat16),
            guidance=GUIDANCE,
        )
        self.near = self.conditioning.to(device, torch.bfloat16)
        self.bring()
        plan = make_plan(parse(SCHEDULE), 1 + 9 * 4)
        self.section, self.history = plan.sections[3], History()
        self.history.remember(range(28), torch.randn(1, c, 28, h, w, **kind))
        self.history_tokens = pack(self.section, self.history, history_patchify(transformer), rope_axes(transformer))

    @property
    def told(self) -> PromptInputs:
        """The prompt as the network is given it."""
        return PromptInputs(self.conditioning.text, self.conditioning.mask, self.conditioning.pooled)

    def bring(self) -> None:
        """Once, and again once there are tables: what they stand for is told on the host."""
        self.brought = bring(self.transformer, self.conditioning, self.x.device)

    def packed(self) -> Tensor:
        """Through the seams."""
        return velocity(self.transformer, self.seams, self.x, self.sigma, self.brought, self.history_tokens)

    def native(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """As diffusers' pipeline asks."""
        far, near, last = ([*look.frames] for look in self.section.sees[1:])
        c, device, sigma = self.near, self.x.device, self.sigma.to(self.x.device, non_blocking=True)
        positions = [torch.tensor(p, device=device) for p in (look.positions for look in self.section.sees)]
        return self.transformer(
            hidden_states=self.x.to(dtype),
            timestep=as_told(sigma),
            encoder_hidden_states=c.text.to(dtype),
            encoder_attention_mask=c.mask,
            pooled_projections=c.pooled.to(dtype),
            guidance=as_told(torch.full_like(sigma, c.guidance)),
            image_embeds=c.image.to(dtype),
            indices_latents=torch.tensor(self.section.positions, device=device),
            latents_clean=self.history.read([0, *last]).to(dtype),
            indices_latents_clean=torch.cat([positions[0], positions[3]]),
            latents_history_2x=self.history.read(near).to(dtype),
            indices_latents_history_2x=positions[2],
            latents_history_4x=self.history.read(far).to(dtype),
            indices_latents_history_4x=positions[1],
            return_dict=False,
        )[0]


def timed(call: Callable[[], Tensor], device: torch.device, repeats: int) -> tuple[float, float]:
    """The median time of calls that follow each other, in seconds, after warming up, and the peak of memory in GiB."""
    call()
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(repeats):
            call()
            marks.append(time.perf_counter())
        return statistics.median(after - before for before, after in pairwise(marks)), float("nan")
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 2)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize()
    steps = [before.elapsed_time(after) / 1e3 for before, after in pairwise(events[1:])]  # the first has none before it
    return statistics.median(steps), torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    main()
