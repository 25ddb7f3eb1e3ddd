"""Networks that are asked once, on a device that is too small for them: what is large comes for its turn.

    host       | embedding | layer 1 | layer 2 | ...      pages of the weights' files
                     |          |
    device     one row a token  one matrix at a time      and all that is small

An encoder of prompts has more weights than many a laptop's GPU has memory, and reads for seconds. On the processor it
would read for minutes where that does not multiply bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["asked_on", "visiting"]

Network = TypeVar("Network", bound=nn.Module)

_LARGE = 1 << 20  # numbers of a tensor that visits; smaller ones stay on the device
_WHOLE = (nn.MultiheadAttention,)  # which use the weights of their children without calling them
_Guest = tuple[dict[str, Any], str, Tensor]  # where a module keeps a tensor, and the one of the host


def visiting(network: Network, device: torch.device | str) -> Network:
    """The network, to be asked on a device, its large weights on the host.

    Large tensors are on the device while their module is called. Of large embeddings rows are looked up where they are.
    """
    device = torch.device(device)
    network._asked_on = device  # pyright: ignore[reportArgumentType]  (it is no parameter)
    _visit(network, device)
    return network.eval()


def asked_on(network: nn.Module) -> torch.device:
    """Where a network wants its inputs."""
    return getattr(network, "_asked_on", None) or next(network.parameters()).device


def _visit(module: nn.Module, device: torch.device) -> None:
    owners = module.modules() if isinstance(module, _WHOLE) else (module,)
    tables: list[dict[str, Any]] = [table for owner in owners for table in (owner._parameters, owner._buffers)]
    large: list[_Guest] = []
    for table in tables:
        for name, tensor in table.items():
            if tensor is not None and tensor.numel() < _LARGE:
                table[name] = _moved(tensor, device)
            elif tensor is not None:
                large.append((table, name, tensor))
    if large and isinstance(module, nn.Embedding):
        module.register_forward_pre_hook(lambda module, given: tuple(each.cpu() for each in given))
        module.register_forward_hook(lambda module, given, rows: rows.to(device))
    elif large:
        module.register_forward_pre_hook(lambda *_: _come(large, device))
        module.register_forward_hook(lambda *_: _leave(large), always_call=True)
    if not isinstance(module, _WHOLE):
        for child in module.children():
            _visit(child, device)


def _come(guests: Sequence[_Guest], device: torch.device) -> None:
    for table, name, home in guests:
        table[name] = _moved(home, device)


def _leave(guests: Sequence[_Guest]) -> None:
    """Nothing is copied back."""
    for table, name, home in guests:
        table[name] = home


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    moved = tensor.to(device)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved
