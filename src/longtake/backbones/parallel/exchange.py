"""Parts of tensors that change places between the ranks of a group: tokens for heads, and heads for tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributed import ProcessGroup

from longtake.errors import ModelError

__all__ = ["Exchange", "divide"]


def divide(count: int, ranks: int) -> tuple[int, ...]:
    """How many of `count` things each rank has, the first ones one more.

    >>> divide(17, 4)
    (5, 4, 4, 4)
    """
    return tuple(count // ranks + (rank < count % ranks) for rank in range(ranks))


class Exchange:
    """Trades parts of tensors between the ranks of a group.

    All ranks call the same methods in the same order. The collectives are those that the compiler knows, and return
    before the data have arrived: what is called to wait is called where they are needed.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.name, self.rank, self.size = group.group_name, group.rank(), group.size()
        self.tokens: tuple[int, ...] = ()  # of each rank, in the forward that runs
        self.text: tuple[int, ...] = ()  # of the text, where it stands beside them

    def begin(self, tokens: int, text: int = 0) -> None:
        """Divides the tokens of a forward.

        Raises:
            ModelError: there are too few for every rank to have one.
        """
        for count, kind in ((tokens, "tokens"), (text, "tokens of text and image")):
            if 0 < count < self.size:
                raise ModelError(f"{count} {kind} for {self.size} devices: {count} is the most that can share them")
        self.tokens = divide(tokens, self.size)
        self.text = divide(text, self.size)[::-1]  # who has one token more has not one text token more

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens and text of each rank."""
        return tuple(map(sum, zip(self.tokens, self.text, strict=True)))

    def part(self, x: Tensor, dim: int) -> Tensor:
        """This rank's part of what every token has."""
        return x.narrow(dim, sum(self.tokens[: self.rank]), self.tokens[self.rank])

    def part_of_text(self, x: Tensor) -> Tensor:
        """This rank's part of "b s d"."""
        return x.narrow(1, sum(self.text[: self.rank]), self.text[self.rank])

    def attend(
        self,
        attend: Callable[[Tensor, Tensor, Tensor], Float[Tensor, "b m h e"]],
        query: Callable[[], Float[Tensor, "b n a e"]],
        key: Callable[[], Float[Tensor, "b n a e"]],
        value: Callable[[], Float[Tensor, "b n a e"]],
    ) -> Float[Tensor, "b n a e"]:
        """What this rank's tokens see of all, where `attend` computes heads of all tokens.

        Values leave before keys are computed, keys before queries. A rank's heads go by halves: while the first half is
        computed the second travels, and the first travels back while the second is computed.
        """
        made, first = [], []
        for make in (value, key, query):
            made.append(make())
            first.append(self.to_heads(made[-1], 0))
        coming, going = [first], []
        if made[0].shape[2] > self.size:
            coming.append([self.to_heads(x, 1) for x in made])
        for half in coming:
            values, keys, queries = (arrived() for arrived in half)
            going.append(self.to_tokens(attend(queries, keys, values)))
        return torch.cat([arrived() for arrived in going], dim=3).flatten(2, 3)

    def to_heads(self, x: Float[Tensor, "b n a e"], half: int) -> Callable[[], Float[Tensor, "b m h e"]]:
        """Sends heads of this rank's tokens to whose they are; waiting gives all tokens of half of this rank's heads.

        The tokens come rank by rank, each rank's text behind the others of its tokens.
        """
        b, n, a, e = x.shape
        assert n == self.counts[self.rank], "the blocks were called by another way than their own call"
        heads = x.unflatten(2, (self.size, -1)).tensor_split(2 if a > self.size else 1, dim=3)[half]
        h = heads.shape[3]
        leaving = heads.permute(2, 1, 0, 3, 4).flatten()
        coming = self._trade(leaving, [b * h * e * n] * self.size, [b * h * e * count for count in self.counts])
        return lambda: _arrived(coming).view(-1, b, h, e).transpose(0, 1)

    def to_tokens(self, x: Float[Tensor, "b m h e"]) -> Callable[[], Float[Tensor, "b n r h e"]]:
        """The way back: waiting gives this rank's tokens, of each rank the heads that it computed."""
        b, _, h, e = x.shape
        n, each = self.counts[self.rank], b * h * e
        leaving = x.transpose(0, 1).flatten()
        coming = self._trade(leaving, [each * count for count in self.counts], [each * n] * self.size)
        return lambda: _arrived(coming).view(self.size, n, b, h, e).permute(2, 1, 0, 3, 4)

    def whole(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        """All ranks' tokens, in all ranks."""
        b, n, d = x.shape
        leaving = x.transpose(0, 1).expand(self.size, n, b, d).flatten()
        coming = self._trade(leaving, [n * b * d] * self.size, [count * b * d for count in self.tokens])
        return _arrived(coming).view(-1, b, d).transpose(0, 1)

    def in_order_of_ranks(self, mask: Shaped[Tensor, "*_ m"]) -> Shaped[Tensor, "*_ m"]:
        """A mask of keys, tokens before text, as the tokens lie after `to_heads`."""
        ends, total = [*accumulate(self.tokens)], sum(self.tokens)
        starts_of_text = [total + end - count for end, count in zip(accumulate(self.text), self.text, strict=True)]
        parts = []
        for end, count, start, length in zip(ends, self.tokens, starts_of_text, self.text, strict=True):
            parts += [mask[..., end - count : end], mask[..., start : start + length]]
        return torch.cat(parts, dim=-1)

    def _trade(self, x: Shaped[Tensor, " _"], leaving: Sequence[int], arriving: Sequence[int]) -> Tensor:
        # Flat: the compiler may give what it makes other strides, and a collective reads memory as it lies.
        return torch.ops._c10d_functional.all_to_all_single(x, arriving, leaving, self.name)


def _arrived(x: Tensor) -> Tensor:
    return torch.ops._c10d_functional.wait_tensor(x)
