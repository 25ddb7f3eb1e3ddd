"""The benchmark that makes a whole video by the commands of the guide, at tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longtake.backbones import MODELS, find_parts

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import whole_video
from random_framepack import LAYERS, MODEL, full_networks, save_random


def test_random_networks_have_the_parameters_of_the_published_ones():
    with torch.device("meta"):
        made = {name: make() for name, make in full_networks(LAYERS).items()}
    published = {part.name: part.parameters for part in MODELS[MODEL].parts if part.parameters}
    assert {name: sum(p.numel() for p in network.parameters()) for name, network in made.items()} == published


def test_a_random_model_is_written_in_shards_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr("random_framepack.SHARD", 1 << 17)
    save_random(tmp_path, torch.device("cpu"), tiny=True)
    found = find_parts(MODELS[MODEL], tmp_path)
    assert not found.absent
    shards = [path for path in found.parts[0].files if path.suffix == ".safetensors"]
    assert len(shards) > 1
    assert all(tensor.isfinite().all() for path in shards for tensor in load_file(path).values())
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    save_random(tmp_path, torch.device("cpu"), tiny=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


@pytest.mark.slow
def test_a_video_is_whole_after_a_kill_in_its_middle(tmp_path):
    command = [sys.executable, whole_video.__file__, "--tiny", "--device", "cpu", "--kill"]
    subprocess.run([*command, "--output", str(tmp_path)], check=True)
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["whole"]
    assert numbers["kept"]
    assert numbers["video"]["images"] == 36 * len(numbers["rows"]) + 1
    assert 0 < numbers["finished before"] < len(numbers["rows"])
