"""Encoders whose weights visit the device, against the same ones that are there."""

import numpy as np
import pytest
import torch

from longtake.backbones import load_backbone, visiting
from longtake.backbones.outline import Loaded

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
PROMPTS = ["a red ball rolls left", "the camera turns"]
CPU, META, GPU = torch.device("cpu"), torch.device("meta"), "cuda"


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(visiting, "_LARGE", 1)


def told(folder, device, visits):
    words = load_backbone(folder, how=Loaded(device, rest=True, visits=visits)).prompts.tell(PROMPTS, PICTURE).told
    return [each if isinstance(each, torch.Tensor) else (each.text, each.pooled, each.image) for each in words.values()]


def check(folder, device):
    for ours, theirs in zip(told(folder, device, True), told(folder, device, False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_they_read_the_same(framepack_folder, tiny_backbone_folder):
    for folder in (framepack_folder, tiny_backbone_folder):
        check(folder, CPU)


@pytest.mark.gpu
def test_they_read_the_same_on_a_gpu(framepack_folder, tiny_backbone_folder):
    for folder in (framepack_folder, tiny_backbone_folder):
        check(folder, GPU)


@pytest.mark.parametrize("large", [1, 20, 10**9])
def test_what_is_large_is_home_again_after_a_call(monkeypatch, large):
    """Everything is computed on the device: here one on which there are no numbers."""
    monkeypatch.setattr(visiting, "_LARGE", large)
    layers = torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
    network = visiting.visiting(torch.nn.Sequential(*layers), META)
    assert visiting.asked_on(network) == META
    for _ in range(2):
        assert network(torch.empty(3, 4, device=META)).device == META
        for tensor in (*network.parameters(), *network.buffers()):
            assert tensor.device == (CPU if tensor.numel() >= large else META)


def test_rows_are_looked_up_where_they_are():
    embedding = visiting.visiting(torch.nn.Embedding(8, 4), META)
    assert embedding(torch.tensor([1, 2])).device == META
    assert embedding.weight.device == CPU


def test_a_call_that_fails_sends_everything_home():
    network = visiting.visiting(torch.nn.Sequential(torch.nn.Linear(4, 4)), META)
    with pytest.raises(RuntimeError):
        network(torch.empty(1, 5, device=META))
    assert all(weight.device == CPU for weight in network.parameters())


def test_layers_whose_children_are_not_called_come_as_a_whole():
    layer = visiting.visiting(torch.nn.MultiheadAttention(8, 2, batch_first=True), META)
    x = torch.empty(1, 3, 8, device=META)
    seen, _ = layer(x, x, x)
    assert seen.device == META
    assert layer.out_proj.weight.device == CPU
