import gc
import weakref

import pytest
import torch

from longtake.backbones.loan import borrow


@pytest.fixture
def no_sweeping():
    """Without Python's own collection of cycles, which could pass by in time."""
    gc.disable()
    yield
    gc.enable()


def test_a_borrowed_part_is_gone_though_it_holds_itself_in_a_cycle(no_sweeping):
    left = []

    def load():
        layer = torch.nn.Linear(2, 3)
        layer.__dict__["me"] = layer  # as hooks do
        left.append(weakref.ref(layer))
        return layer

    assert borrow(load, lambda layer: layer.weight.shape) == (3, 2)
    assert left[0]() is None


def test_the_part_is_there_while_it_is_used(no_sweeping):
    left = []

    def use(layer):
        left.append(weakref.ref(layer))
        gc.collect()
        return left[0]() is layer

    assert borrow(lambda: torch.nn.Linear(2, 3), use)
    assert left[0]() is None


def test_a_part_whose_use_failed_is_gone_when_the_error_is_dealt_with(no_sweeping):
    left = []

    def use(layer):
        left.append(weakref.ref(layer))
        raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        borrow(lambda: torch.nn.Linear(2, 3), use)
    gc.collect()
    assert left[0]() is None
