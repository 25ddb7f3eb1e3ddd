"""Networks without their weights, to see whether a file would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from longtake.errors import ModelError

__all__ = ["placed", "quiet", "shapes_of", "skeleton"]


Network = TypeVar("Network", bound=nn.Module)


def skeleton(folder: Path, build: Callable[[], Any]) -> Any:
    """The network that `build` makes of the config in a folder, on the meta device.

    Raises:
        ModelError: the config does not describe a network.
    """
    try:
        with torch.device("meta"), quiet():
            return build()
    except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ModelError(f"{folder}: config.json does not describe a network ({error})") from error


def shapes_of(network: nn.Module) -> Mapping[str, torch.Size]:
    """What a file of its weights has to hold."""
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def placed(network: Network, device: torch.device | str) -> Network:
    """The network on a device, to be asked and not trained."""
    nn.Module.to(network, device)
    return network.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, and without diffusers' remark that it does not know the history weights."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_bar, transformers_bar = (m.is_progress_bar_enabled() for m in (diffusers_logging, transformers_logging))
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        if diffusers_bar:
            diffusers_logging.enable_progress_bar()
        if transformers_bar:
            transformers_logging.enable_progress_bar()
