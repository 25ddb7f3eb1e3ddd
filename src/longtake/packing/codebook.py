"""Discretized history: each latent pixel of what a section sees becomes the nearest of K words (paper, Eq. 6).

Small errors of the model's own frames are rounded away instead of passed on, at the price of what the words cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from longtake.errors import ConfigError

__all__ = ["Codebook", "Discretization", "Fit", "fit_codebook", "fit_of"]

CHUNK = 1 << 16  # vectors that are compared with all words at a time


@dataclass(frozen=True, slots=True)
class Codebook:
    """The words that latent pixels are rounded to.

    >>> codebook = Codebook(torch.tensor([[0.0], [1.0]]))
    >>> codebook.quantize(torch.tensor([0.2, 0.9, -3.0]).view(1, 1, 1, 1, 3)).flatten()
    tensor([0., 1., 0.])
    """

    words: Float[Tensor, "k c"]

    def __len__(self) -> int:
        return len(self.words)

    def nearest(self, vectors: Float[Tensor, "n c"]) -> Int[Tensor, " n"]:
        """The number of the word nearest to each vector."""
        words = self.words.to(vectors.device)
        half = words.square().sum(1) / 2
        chunks = vectors.to(words.dtype).split(CHUNK)
        return torch.cat([(half - chunk @ words.T).argmin(1) for chunk in chunks])

    def indices(self, frames: Float[Tensor, "b c t h w"]) -> Int[Tensor, "b t h w"]:
        """The index map of frames: K discrete states a latent pixel."""
        b, _, t, h, w = frames.shape
        return self.nearest(rearrange(frames, "b c t h w -> (b t h w) c")).view(b, t, h, w)

    def decode(self, indices: Int[Tensor, "b t h w"]) -> Float[Tensor, "b c t h w"]:
        """The frames that an index map stands for."""
        return rearrange(self.words.to(indices.device)[indices], "b t h w c -> b c t h w")

    def quantize(self, frames: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Frames with each latent pixel replaced by its word, in their own dtype."""
        return self.decode(self.indices(frames)).to(frames.dtype)


@dataclass(frozen=True, slots=True)
class Discretization:
    """Which codebook rounds what: one for every kernel of the schedule, by the kernel's name, or "*" for all others.

    Frames that are real, the user's own images, are not rounded unless `exact_too`.
    """

    codebooks: Mapping[str, Codebook]
    exact_too: bool = False

    def of(self, kernel: str) -> Codebook | None:
        """The codebook for what a kernel sees, if that is rounded at all."""
        return self.codebooks.get(kernel, self.codebooks.get("*"))


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a codebook says what it is to say."""

    size: int
    explained: float  # share of the variance that is kept
    error: float  # mean distance between a vector and its word
    dead: int  # words that are nearest to nothing


def fit_of(codebook: Codebook, vectors: Float[Tensor, "n c"]) -> Fit:
    """The fit of a codebook to vectors, such as held-out ones."""
    nearest = codebook.nearest(vectors)
    off = (vectors.float() - codebook.words.to(vectors.device)[nearest]).double().square().sum(1)
    spread = (vectors.double() - vectors.double().mean(0)).square().sum(1)
    used = torch.bincount(nearest, minlength=len(codebook))
    return Fit(len(codebook), 1 - (off.mean() / spread.mean()).item(), off.sqrt().mean().item(), int((used == 0).sum()))


def fit_codebook(
    vectors: Float[Tensor, "n c"], size: int, seed: int = 0, rounds: int = 60, batch: int = 1 << 15
) -> Codebook:
    """K-means words of `vectors`: k-means++ to begin, then minibatches (Sculley 2010), then three whole passes.

    A word that a round leaves without vectors moves to the one that is farthest from its own word. Draws are made on
    the CPU: a seed means the same on every device.

    Raises:
        ConfigError: there are fewer different vectors than words.
    """
    draw = torch.Generator().manual_seed(seed)
    vectors = vectors.float()
    distinct = len(torch.unique(vectors[:: max(1, len(vectors) // (64 * size))], dim=0))
    if distinct < size:
        raise ConfigError(f"a codebook of {size} words cannot be made of {distinct} different latent pixels")
    words = _scattered(_sample(vectors, max(batch, 8 * size), draw), size, draw).double()
    weights = torch.zeros(size, dtype=torch.float64, device=vectors.device)
    for _ in range(rounds):
        words, weights = _moved(words, weights, _sample(vectors, batch, draw))
    for _ in range(3):
        words, _ = _moved(words, torch.zeros_like(weights), vectors)
    return Codebook(words.float())


def _sample(vectors: Tensor, count: int, draw: torch.Generator) -> Tensor:
    if count >= len(vectors):
        return vectors
    return vectors[torch.randint(len(vectors), (count,), generator=draw).to(vectors.device)]


def _scattered(vectors: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """K-means++: each next word is a vector, drawn by its squared distance to the words so far."""
    chosen = torch.randint(len(vectors), (1,), generator=draw).to(vectors.device)
    words = [vectors[chosen[0]]]
    distance = (vectors - words[0]).square().sum(1).double()
    for share in torch.rand(size - 1, generator=draw, dtype=torch.float64).to(vectors.device):
        reached = distance.cumsum(0)
        at = torch.searchsorted(reached, share * reached[-1]).clamp(max=len(vectors) - 1)
        words.append(vectors[at])
        distance = torch.minimum(distance, (vectors - words[-1]).square().sum(1).double())
    return torch.stack(words)


def _moved(words: Tensor, weights: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Words as means of the vectors that they were nearest to, earlier ones counted with `weights`."""
    nearest = Codebook(words.float()).nearest(vectors)
    counts = torch.bincount(nearest, minlength=len(words)).double()
    sums = torch.zeros_like(words).index_add_(0, nearest, vectors.double())
    total = weights + counts
    moved = torch.where(total[:, None] > 0, (words * weights[:, None] + sums) / total.clamp(min=1)[:, None], words)
    lost = (total == 0).nonzero().flatten()
    if len(lost):
        off = (vectors.double() - words[nearest]).square().sum(1)
        moved[lost] = vectors[off.topk(min(len(lost), len(off))).indices].double()[: len(lost)]
    return moved, total
