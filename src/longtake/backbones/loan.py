"""Parts that are needed once and then leave memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["borrow"]

Part = TypeVar("Part")
Result = TypeVar("Result")


def borrow(load: Callable[[], Part], use: Callable[[Part], Result]) -> Result:
    """What `use` makes of the part that `load` loads; the part is gone from memory when this returns.

    A function of functions and not a `with`, whose variable would keep the part alive after its block.

    >>> borrow(lambda: torch.nn.Linear(2, 3), lambda layer: tuple(layer.weight.shape))
    (3, 2)
    """
    try:
        return use(load())
    finally:
        gc.collect()  # networks hold themselves in cycles
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
