"""Optimizers: Muon for matrices, AdamW for the rest, float32 master weights, and an average of them.

A network that computes in bfloat16 keeps its true weights here, in float32: gradients are copied up, the step is
taken there, the result is copied down. `Optimizer` is all of a training's state besides the step number, so that saving
it is saving the training.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Optimizer", "OptimizerSettings", "orthogonalize", "rate"]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """What the two optimizers are told; rates are those at the peak of the schedule."""

    matrix_rate: float = 1.5e-3  # Muon, scaled by sqrt(max(1, rows / columns)) as its author does
    vector_rate: float = 8e-4  # AdamW
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999  # decay of the average; the early steps use less, see `Optimizer.step`


def rate(step: int, progress: float, warmup: int, hold: float) -> float:
    """The share of the peak rate: up linearly for `warmup` steps, flat, then down linearly to zero at progress 1.

    >>> [rate(step, progress, warmup=4, hold=0.5) for step, progress in ((0, 0.0), (3, 0.1), (9, 0.8), (12, 1.0))]
    [0.25, 1.0, 0.4, 0.0]
    """
    up = min(1.0, (step + 1) / max(1, warmup))
    down = 1.0 if progress < hold else (1.0 - progress) / max(1.0 - hold, 1e-9)
    return round(max(0.0, min(up, down)), 12)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """The matrices `b m n` with all singular values moved near 1 by a Newton-Schulz iteration of degree 5.

    The coefficients are those of K. Jordan's Muon (2024): they converge fast and stop at 0.7 .. 1.2, which is enough.
    Computes in bfloat16 on a GPU, in the given precision elsewhere.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def is_matrix(name: str, parameter: Tensor) -> bool:
    """True for weights that Muon may have: matrices and convolutions inside the network, not its rim or its tables."""
    rim = ("patch_embed", "proj_out", "embed_tokens", "shared", "scale_shift_table", "relative_attention", "modulation")
    return (
        parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= 16 and not any(r in name for r in rim)
    )


class Optimizer:
    """The trainable state of some named parameters."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings) -> None:
        self.settings = settings
        self.parameters = {name: p for name, p in named if p.requires_grad}
        self.master = {name: p.detach().float().clone() for name, p in self.parameters.items()}
        self.average = {name: m.clone() for name, m in self.master.items()}
        self.momentum = {n: torch.zeros_like(m) for n, m in self.master.items() if is_matrix(n, m)}
        self.first = {n: torch.zeros_like(m) for n, m in self.master.items() if n not in self.momentum}
        self.second = {n: torch.zeros_like(m) for n, m in self.master.items() if n not in self.momentum}
        self.by_shape: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name in self.momentum:
            self.by_shape[(self.master[name].shape[0], self.master[name][0].numel())].append(name)

    @torch.no_grad()
    def step(self, number: int, share: float) -> Tensor:
        """Takes step `number` (from 0) at `share` of the peak rates; gives the gradient's norm before clipping."""
        s = self.settings
        gradients = {
            n: torch.zeros_like(self.master[n]) if p.grad is None else p.grad.float()
            for n, p in self.parameters.items()
        }
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients.values()))))
        torch._foreach_mul_(list(gradients.values()), torch.clamp(s.clip / (norm + 1e-6), max=1.0))
        self._step_matrices(gradients, share)
        self._step_vectors(gradients, number, share)
        masters = list(self.master.values())
        torch._foreach_copy_(list(self.parameters.values()), masters)
        # The young average forgets faster: after step n it spans about n / 5 steps (power-function average, EDM2).
        torch._foreach_lerp_(list(self.average.values()), masters, 1.0 - min(s.average, (number + 1) / (number + 6)))
        for parameter in self.parameters.values():
            parameter.grad = None
        return norm

    def _step_matrices(self, gradients: Mapping[str, Tensor], share: float) -> None:
        s = self.settings
        names = list(self.momentum)
        if not names:
            return
        momenta = [self.momentum[n] for n in names]
        torch._foreach_lerp_(momenta, [gradients[n] for n in names], 1.0 - s.momentum)
        torch._foreach_mul_([self.master[n] for n in names], 1.0 - s.matrix_rate * share * s.weight_decay)
        for (rows, columns), group in self.by_shape.items():
            nesterov = torch.stack([torch.lerp(gradients[n], self.momentum[n], s.momentum).flatten(1) for n in group])
            updates = orthogonalize(nesterov)
            size = s.matrix_rate * share * math.sqrt(max(1.0, rows / columns))
            torch._foreach_add_(
                [self.master[n] for n in group],
                [u.view_as(self.master[n]) for n, u in zip(group, updates, strict=True)],
                alpha=-size,
            )

    def _step_vectors(self, gradients: Mapping[str, Tensor], number: int, share: float) -> None:
        s = self.settings
        names = list(self.first)
        if not names:
            return
        masters, firsts, seconds = ([d[n] for n in names] for d in (self.master, self.first, self.second))
        found = [gradients[n] for n in names]
        torch._foreach_lerp_(firsts, found, 1.0 - s.betas[0])
        torch._foreach_mul_(seconds, s.betas[1])
        torch._foreach_addcmul_(seconds, found, found, 1.0 - s.betas[1])
        scale = math.sqrt(1.0 - s.betas[1] ** (number + 1)) / (1.0 - s.betas[0] ** (number + 1))
        divisors = torch._foreach_sqrt(seconds)
        torch._foreach_add_(divisors, 1e-8)
        decayed = [m for m in masters if m.ndim >= 2]
        torch._foreach_mul_(decayed, 1.0 - s.vector_rate * share * s.weight_decay)
        torch._foreach_addcdiv_(masters, firsts, divisors, -s.vector_rate * share * scale)

    def state(self) -> dict[str, Tensor]:
        """All of it as one flat dict of float32 tensors, named `part/parameter`."""
        return {f"{part}/{n}": t for part in self._parts() for n, t in getattr(self, part).items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes up a saved state in place and writes the weights into the network."""
        for part in self._parts():
            for name, tensor in getattr(self, part).items():
                tensor.copy_(state[f"{part}/{name}"])
        self.write(self.master)

    @torch.no_grad()
    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Puts `weights` (the master weights or their average) into the network."""
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    @staticmethod
    def _parts() -> tuple[str, ...]:
        return ("master", "average", "momentum", "first", "second")
