"""Parts of tensors that change places between the ranks of a group: tokens for heads, and heads for tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributed import ProcessGroup

from longtake.backbones.parallel.mailboxes import Mailboxes, open_mailboxes
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

    All ranks call the same methods in the same order. Where devices reach each other's memory, they write into it;
    elsewhere, and in what is compiled, there are collectives that the compiler knows, and that return before the data
    have arrived: what is called to wait is called where they are needed.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.name, self.rank, self.size = group.group_name, group.rank(), group.size()
        self.open = partial(cache(open_mailboxes), group)  # of a device
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

        A head's tokens come rank by rank, each rank's text behind the others of its tokens.
        """
        values = value()
        assert values.shape[1] == self.counts[self.rank], "the blocks were called by another way than their own call"
        mailboxes = None if torch.compiler.is_compiling() else self.open(values.device)
        if mailboxes is not None:
            return self._attend_by_mail(mailboxes, attend, query(), key(), values)
        return self._attend_by_halves(attend, query, key, values)

    def _attend_by_mail(
        self, mailboxes: Mailboxes, attend: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor
    ) -> Float[Tensor, "b n a e"]:
        """What it gives lies in this rank's mailbox, until the next exchange."""
        b, _, a, e = query.shape
        m, h, ends = sum(self.counts), a // self.size, [0, *accumulate(self.counts)]
        spans = [slice(*each) for each in pairwise(ends)]  # of each rank's tokens among all
        inside, outside = 3 * b * m * h * e, b * max(self.counts) * a * e
        boxes = mailboxes.of(inside + outside, query.dtype)
        inboxes = [box[:inside].view(3, b, m, h, e) for box in boxes]
        outboxes = [box[inside:][: b * n * a * e].view(b, n, a, e) for box, n in zip(boxes, self.counts, strict=True)]
        others_first = [(self.rank + 1 + k) % self.size for k in range(self.size)]
        for rank in others_first:
            for inbox, x in zip(inboxes[rank], (query, key, value), strict=True):
                _write(inbox[:, spans[self.rank]], x[:, :, rank * h : (rank + 1) * h])
        mailboxes.meet()
        seen = attend(*inboxes[self.rank])
        for rank in others_first:
            _write(outboxes[rank][:, :, self.rank * h : (self.rank + 1) * h], seen[:, spans[rank]])
        mailboxes.meet()
        return outboxes[self.rank]

    def _attend_by_halves(
        self,
        attend: Callable[..., Tensor],
        query: Callable[[], Tensor],
        key: Callable[[], Tensor],
        value: Float[Tensor, "b n a e"],
    ) -> Float[Tensor, "b n a e"]:
        """Values leave before keys are computed, keys before queries. A rank's heads go by halves.

        While the first half is computed the second travels, and the first travels back while the second is computed.
        """
        made, coming = [value], [[self._to_heads(value, 0)]]
        for make in (key, query):
            made.append(make())
            coming[0].append(self._to_heads(made[-1], 0))
        if value.shape[2] > self.size:
            coming.append([self._to_heads(x, 1) for x in made])
        going = []
        for half in coming:
            values, keys, queries = (arrived() for arrived in half)
            going.append(self._to_tokens(attend(queries, keys, values)))
        return torch.cat([arrived() for arrived in going], dim=3).flatten(2, 3)

    def _to_heads(self, x: Float[Tensor, "b n a e"], half: int) -> Callable[[], Float[Tensor, "b m h e"]]:
        """Sends heads of this rank's tokens to whose they are; waiting gives all tokens of half of its own."""
        b, n, a, e = x.shape
        heads = x.unflatten(2, (self.size, -1)).tensor_split(2 if a > self.size else 1, dim=3)[half]
        h = heads.shape[3]
        leaving = heads.permute(2, 1, 0, 3, 4).flatten()
        coming = self._trade(leaving, [b * h * e * n] * self.size, [b * h * e * count for count in self.counts])
        return lambda: _arrived(coming).view(-1, b, h, e).transpose(0, 1)

    def _to_tokens(self, x: Float[Tensor, "b m h e"]) -> Callable[[], Float[Tensor, "b n r h e"]]:
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
        """A mask of keys, tokens before text, as the tokens lie in `attend`."""
        ends, total = [*accumulate(self.tokens)], sum(self.tokens)
        starts_of_text = [total + end - count for end, count in zip(accumulate(self.text), self.text, strict=True)]
        parts = []
        for end, count, start, length in zip(ends, self.tokens, starts_of_text, self.text, strict=True):
            parts += [mask[..., end - count : end], mask[..., start : start + length]]
        return torch.cat(parts, dim=-1)

    def _trade(self, x: Shaped[Tensor, " _"], leaving: Sequence[int], arriving: Sequence[int]) -> Tensor:
        # Flat: the compiler may give what it makes other strides, and a collective reads memory as it lies.
        return torch.ops._c10d_functional.all_to_all_single(x, arriving, leaving, self.name)


def _write(place: Shaped[Tensor, "*_ e"], x: Shaped[Tensor, "*_ e"]) -> None:
    """Copies, in words of 16 bytes where both lie so that they can: fewer and larger ones travel faster."""
    word = 16 // x.itemsize
    wide = all(
        each.stride(-1) == 1
        and not any(step % word for step in (each.shape[-1], each.storage_offset(), *each.stride()[:-1]))
        for each in (place, x)
    )
    if wide:
        place, x = place.view(torch.complex128), x.view(torch.complex128)
    place.copy_(x)


def _arrived(x: Tensor) -> Tensor:
    return torch.ops._c10d_functional.wait_tensor(x)
