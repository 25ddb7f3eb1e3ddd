"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["GUIDES", "guide", "guide_history", "guide_zero_star"]


def guide(
    conditional: Float[Tensor, "b ..."], unconditional: Float[Tensor, "b ..."], scale: float, rescale: float = 0.0
) -> Float[Tensor, "b ..."]:
    """The velocity pushed away from the unconditional one: `u + scale (c - u)`.

    `rescale` blends in the same with its standard deviation, over each sample, brought back to the conditional one's
    (arXiv 2305.08891, section 3.4), which keeps high scales from burning. At scale 1 the unconditional velocity does
    not count: don't compute it.

    >>> guide(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), scale=2.0)
    tensor([[2., 5.]])
    >>> guide(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), scale=2.0, rescale=1.0)
    tensor([[1.3333, 3.3333]])
    """
    return _rescaled(unconditional + scale * (conditional - unconditional), conditional, rescale)


def guide_zero_star(
    conditional: Float[Tensor, "b ..."], unconditional: Float[Tensor, "b ..."], scale: float, rescale: float = 0.0
) -> Float[Tensor, "b ..."]:
    """The velocity pushed away from the unconditional one's share of it: CFG-Zero* (arXiv 2503.18886).

    `a u + scale (c - a u)`, where `a` brings each sample's `u` as near to `c` as a factor can;
    `rescale` is that of `guide`.

    >>> guide_zero_star(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), scale=2.0)
    tensor([[2., 3.]])
    """
    c, u = conditional.flatten(1).float(), unconditional.flatten(1).float()
    share = (c * u).sum(1) / (u.square().sum(1) + 1e-8)
    nearest = unconditional * share.view(-1, *[1] * (conditional.ndim - 1)).to(conditional.dtype)
    return _rescaled(nearest + scale * (conditional - nearest), conditional, rescale)


def guide_history(
    guided: Float[Tensor, "b ..."], seen: Float[Tensor, "b ..."], unseen: Float[Tensor, "b ..."], scale: float
) -> Float[Tensor, "b ..."]:
    """A velocity pushed away from what it would be without its history: `guided + (scale - 1) (seen - unseen)`.

    History guidance (arXiv 2502.06764). `seen` is the velocity with history, `unseen` the one with a history of noise
    or zeros, both with the prompt; `guided` is `seen`, or what guidance by the prompt makes of it.

    >>> seen, unseen = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    >>> guide_history(seen, seen, unseen, scale=2.0)
    tensor([[2., 5.]])
    """
    return guided + (scale - 1.0) * (seen - unseen)


def _rescaled(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    if rescale == 0.0:
        return guided
    dims = tuple(range(1, guided.ndim))
    matched = guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return torch.lerp(guided, matched, rescale)


GUIDES: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {"plain": guide, "zero_star": guide_zero_star}
