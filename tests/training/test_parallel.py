"""Two processes on the CPU: what one does alone on the whole batch, or with all clips, two do on halves of it."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from longtake.backbones import Codec
from longtake.backbones.architecture import new_codec
from longtake.toybox import write_clips
from longtake.training.cache import encode_tracks
from longtake.training.clips import open_clips
from longtake.training.config import PRESETS
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


def tracks(world: World, folder: Path) -> list[np.ndarray]:
    torch.manual_seed(1)
    codec = Codec(new_codec(PRESETS["codec/tiny"].shape))
    found = encode_tracks(codec, open_clips(folder), (0, 24), 2, torch.device("cpu"), torch.float32, True, 1, world)
    return [found.latents.numpy(), found.keys.numpy()]


def learn(world: World) -> tuple[float, dict[str, np.ndarray]]:
    agreed = world.agree(0.25 + world.rank, "cpu")
    return agreed, {name: tensor.numpy() for name, tensor in steps(world).items()}


def work(rank, port, results, task, arguments):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    world, device = join_world("cpu")
    assert device == "cpu"
    results.put(task(world, *arguments))
    distributed.barrier()
    world.leave()


def in_two_processes(task: Callable, *arguments) -> list:
    """What each of two processes gives."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=work, args=(rank, port, results, task, arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return found


def test_two_processes_equal_one_with_the_whole_batch():
    alone = steps(ALONE)
    for agreed, weights in in_two_processes(learn):
        assert agreed == 0.25
        for name, expected in alone.items():
            # The mean of two halves' means is the mean of the whole but for the order of additions.
            torch.testing.assert_close(torch.from_numpy(weights[name]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(find_spec("mujoco") is None, reason="needs MuJoCo, the extra `toybox`")
def test_two_processes_share_the_encoding_and_both_have_all_tracks(tmp_path):
    write_clips(tmp_path, (0, 1, 2), images=49, height=32, width=48)
    alone = tracks(ALONE, tmp_path)
    assert all(track.any() for track in alone[0])
    for found in in_two_processes(tracks, tmp_path):
        for ours, expected in zip(found, alone, strict=True):
            assert np.array_equal(ours, expected)
