"""Two processes on the CPU: what one trains alone on the whole batch, two train on halves of it."""

import multiprocessing
import os
import socket

import torch
from torch import distributed, nn

from longtake.training.optim import Optimizer, OptimizerSettings
from longtake.training.parallel import ALONE, World, join_world


def batch():
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 4))


def steps(world: World, count: int = 3) -> dict[str, torch.Tensor]:
    model = network()
    state = Optimizer(model.named_parameters(), OptimizerSettings())
    share = batch().chunk(world.size)[world.rank]
    for step in range(count):
        model(share).square().mean().backward()
        world.average_gradients(model.parameters())
        state.step(step, 1.0)
    return {name: tensor.clone() for name, tensor in state.master.items()}


def work(rank, port, results):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    world, device = join_world("cpu")
    assert device == "cpu"
    agreed = world.agree(0.25 + rank, "cpu")
    results.put((rank, agreed, {name: tensor.numpy() for name, tensor in steps(world).items()}))
    distributed.barrier()
    world.leave()


def test_two_processes_equal_one_with_the_whole_batch():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=work, args=(rank, port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    alone = steps(ALONE)
    for _, agreed, weights in found:
        assert agreed == 0.25
        for name, expected in alone.items():
            # The mean of two halves' means is the mean of the whole but for the order of additions.
            torch.testing.assert_close(torch.from_numpy(weights[name]), expected, atol=1e-5, rtol=1e-4)
