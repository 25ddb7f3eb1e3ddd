import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from longtake.errors import NumericsError, RunError
from longtake.training.checkpoints import NAME, Checkpoint, load_checkpoint, save_checkpoint
from longtake.training.config import LoopConfig
from longtake.training.loop import Logged, Stage, train
from longtake.training.optim import OptimizerSettings


class Line(Stage):
    """Fits a small network to y = sum(x); batches depend on the step alone."""

    def __init__(self, broken_at=None):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1))
        self.broken_at = broken_at

    def parameters(self):
        return self.network.named_parameters()

    def loss(self, step):
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(step))
        loss = (self.network(x) - x.sum(1, keepdim=True)).square().mean()
        return {"loss": loss * float("nan") if step == self.broken_at else loss}

    def evaluate(self, folder, step):
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(10**6))
        with torch.no_grad():
            return {"held_out_loss": (self.network(x) - x.sum(1, keepdim=True)).square().mean().item()}

    def export(self, folder):
        folder.mkdir(exist_ok=True)
        save_file({n: p.detach().contiguous() for n, p in self.parameters()}, folder / "weights.safetensors")
        return folder


def weights(folder):
    return load_file(folder / "model" / "weights.safetensors")


CONFIG = LoopConfig(steps=30, log_every=5, evaluate_every=10, checkpoint_steps=(12,))


def test_training_lowers_the_held_out_loss(tmp_path):
    events = list(train(Line(), CONFIG, OptimizerSettings(matrix_rate=0.02, vector_rate=0.02), tmp_path))
    held_out = [e.numbers["held_out_loss"] for e in events if isinstance(e, Logged) and "held_out_loss" in e.numbers]
    assert held_out[-1] < held_out[0]


def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(tmp_path):
    list(train(Line(), CONFIG, OptimizerSettings(), tmp_path / "whole"))
    for event in train(Line(), CONFIG, OptimizerSettings(), tmp_path / "stopped"):
        if isinstance(event, Logged) and event.step == 20:
            break  # steps 13 to 20 are lost; the checkpoint is of step 12
    list(train(Line(), CONFIG, OptimizerSettings(), tmp_path / "stopped"))
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[n], stopped[n]) for n in whole)


class Remembering(Line):
    """Learns its batches with noise that is the sum of all batches before."""

    def __init__(self):
        super().__init__()
        self.sum = torch.zeros(16)

    def memory(self):
        return {"sum": self.sum}

    def loss(self, step):
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(step))
        loss = (self.network(x + 0.1 * self.sum) - x.sum(1, keepdim=True)).square().mean()
        self.sum += x.mean(0)
        return {"loss": loss}


def test_what_steps_leave_behind_is_there_again_after_a_stop(tmp_path):
    list(train(Remembering(), CONFIG, OptimizerSettings(), tmp_path / "whole"))
    for event in train(Remembering(), CONFIG, OptimizerSettings(), tmp_path / "stopped"):
        if isinstance(event, Logged) and event.step == 20:
            break
    list(train(Remembering(), CONFIG, OptimizerSettings(), tmp_path / "stopped"))
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[n], stopped[n]) for n in whole)


def test_a_checkpoint_without_what_a_stage_remembers_is_refused(tmp_path):
    list(train(Line(), CONFIG, OptimizerSettings(), tmp_path))
    with pytest.raises(RunError, match="without this sum"):
        list(train(Remembering(), CONFIG, OptimizerSettings(), tmp_path))


def test_metrics_are_written_as_lines_of_json(tmp_path):
    list(train(Line(), CONFIG, OptimizerSettings(), tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == [5, 10, 15, 20, 25, 30]
    assert all("gradient_norm" in r for r in rows if "loss" in r)


def test_a_loss_that_is_not_a_number_stops_the_training_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(NumericsError, match="step 20"):
        list(train(Line(broken_at=17), CONFIG, OptimizerSettings(), tmp_path))
    assert load_checkpoint(tmp_path).step == 12


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    state = {"master/a": torch.arange(6.0).view(2, 3)}
    save_checkpoint(tmp_path, Checkpoint(7, 1.5, state))
    found = load_checkpoint(tmp_path)
    assert (found.step, found.seconds) == (7, 1.5)
    assert torch.equal(found.state["master/a"], state["master/a"])
    assert load_checkpoint(tmp_path / "empty") is None


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="not a checkpoint"):
        load_checkpoint(tmp_path)
