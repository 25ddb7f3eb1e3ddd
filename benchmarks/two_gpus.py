"""One step of the 13 B FramePack transformer on one GPU, and the same step with its tokens shared by several.

    torchrun --nproc-per-node 2 benchmarks/two_gpus.py --output out/two_gpus
    torchrun --nproc-per-node 2 benchmarks/two_gpus.py --tiny --device cpu        tiny, to see that it runs

The network, the inputs and the measuring are those of `backbone_13b.py`: random weights, 18,485 tokens. Every GPU makes
the whole network; what one GPU does alone, each does by itself at the same time, and the first one's numbers count. A
shared step takes as long as the slowest GPU. Each arm prints the median step, how many times as fast it is as the
fastest one of one GPU, the peak of allocated memory, and how far its output is from the first arm's, as a share of that
one's spread: rounding in bfloat16 moves it, too, when nothing is shared. Then how long the exchanges of a step take
when nothing is computed. Prints a table and where the first GPU's shared step goes, writes numbers.json, where `apart`
is how far the ranks' outputs are from each other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from backbone_13b import FULL, GUIDANCE, SHIFT, STEPS, TINY, Setting, new_transformer, timed
from kernels import kernels_of, print_kernels
from torch import Tensor, distributed

from longtake.backbones.hunyuan.blocks import fuse_blocks
from longtake.backbones.hunyuan.network import as_told
from longtake.backbones.parallel import COMPILE_OPTIONS, share_sequence
from longtake.backbones.parallel.exchange import Exchange
from longtake.backbones.placement import tabulate
from longtake.flow import sigmas
from longtake.training.parallel import World, join_world


def main() -> None:
    """Measures everything; the first rank prints it and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("out/two_gpus"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--blocks", choices=("fused", "compiled", "eager"), default="fused")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    world, device = join_world(options.device)
    if world.size == 1:
        parser.error("one process: start it with torchrun --nproc-per-node 2")
    options.output.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        rows = list(measured(options, world, torch.device(device)))
    if world.rank == 0:
        report(options, rows, world.size)
    world.leave()


def report(options: argparse.Namespace, rows: list[dict], ranks: int) -> None:
    """The table and the file."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    (options.output / "numbers.json").write_text(json.dumps({"device": name, "ranks": ranks, "rows": rows}))
    for row in rows:
        print_kernels(row["arm"], row.get("kernels", {}))
    alone = min(row["seconds"] for row in rows if row["ranks"] == 1)
    print(f"\n{ranks} x {name}\n\n| | s a step | times one | peak GiB | difference |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        cells = f"{row['seconds']:.4f} | {alone / row['seconds']:.2f} | {row['peak']:.2f} | {row['difference']:.2g}"
        print(f"| {row['arm']} | {cells} |")


def measured(options: argparse.Namespace, world: World, device: torch.device) -> Iterator[dict]:
    """A row an arm, each on what the arms before it have made of the network."""
    torch.manual_seed(0)
    transformer = new_transformer(TINY if options.tiny else FULL, device)
    setting = Setting(transformer, device, options.tiny)
    group = distributed.group.WORLD
    first: list[Tensor] = []

    def row(arm: str, ranks: int) -> dict:
        output = setting.packed().float()
        first.append(output)
        distributed.barrier()
        seconds, peak = timed(setting.packed, device, options.repeats)
        numbers = torch.tensor([seconds, peak, apart(output)], dtype=torch.float64, device=device)
        if ranks > 1:
            distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        seconds, peak, apart_by = numbers.tolist()
        difference = ((output - first[0]).std() / first[0].std()).item()
        said(world, f"{arm}: {seconds:.4f} s, {peak:.2f} GiB, difference {difference:.2g}, apart {apart_by:.2g}")
        found = {"seconds": seconds, "peak": peak, "difference": difference, "apart": apart_by}
        return {"arm": arm, "ranks": ranks, **found} | (
            {"kernels": kernels_of(setting.packed, device)} if ranks > 1 else {}
        )

    yield row("one, eager", 1)
    told = as_told(sigmas(STEPS, SHIFT)[:-1].to(device)), as_told(torch.tensor([GUIDANCE])).to(device)
    tabulate(transformer, device, told[0], [setting.told], told[1])
    setting.bring()
    if options.blocks == "fused":
        fuse_blocks(transformer, setting.seams)
    if options.blocks == "compiled":
        compile_blocks(transformer, {})
    kind = f"tables, {options.blocks} blocks"
    yield row(f"one, {kind}", 1)
    if options.blocks == "compiled":
        compile_blocks(transformer, COMPILE_OPTIONS)
    share_sequence(transformer, group)
    yield row(f"{world.size} share, {kind}", world.size)
    yield exchanges(setting, group, device, options.repeats)


def said(world: World, line: str) -> None:
    if world.rank == 0:
        print(line, flush=True)


def apart(output: Tensor) -> float:
    """How far this rank's output is from the first one's."""
    other = output.clone()
    distributed.broadcast(other, src=0)
    return (output - other).abs().max().item()


def compile_blocks(transformer: torch.nn.Module, options: dict) -> None:
    """Anew: a compiler that has seen other numbers of tokens makes kernels for any number."""
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64  # a graph for each kind of block and of input strides
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.compile(options=options)


def exchanges(setting: Setting, group: distributed.ProcessGroup, device: torch.device, repeats: int) -> dict:
    """What a step sends, without what it computes."""
    config, packed = setting.transformer.config, setting.history_tokens
    exchange = Exchange(group)
    exchange.begin(
        packed.tokens.shape[1] + len(packed.target_cos),
        setting.conditioning.text.shape[1] + setting.conditioning.image.shape[1],
    )
    heads, size = config["num_attention_heads"], config["attention_head_dim"]
    x = torch.randn(1, exchange.counts[exchange.rank], heads, size, dtype=torch.bfloat16, device=device)

    def step() -> Tensor:
        out = x
        for _ in range(config["num_layers"] + config["num_single_layers"]):
            out = exchange.attend(lambda query, key, value: query, *[lambda: x] * 3)
        return out

    seconds, peak = timed(step, device, repeats)
    return {"arm": "the exchanges alone", "ranks": group.size(), "seconds": seconds, "peak": peak, "difference": 0.0}


if __name__ == "__main__":
    main()
