"""Prompts as the text tokens that a Wan network reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from longtake.backbones.loan import borrow
from longtake.backbones.visiting import asked_on
from longtake.errors import ModelError

__all__ = ["LentPromptEncoder", "PromptEncoder", "PromptReport", "Words"]


@dataclass(frozen=True, slots=True)
class PromptReport:
    """What became of a prompt: how long it is, and what the network will not read of it."""

    prompt: str
    tokens: int  # of the whole prompt, its end mark included
    limit: int
    lost: str  # what comes after the last token that fits; empty where all fits
    unknown: tuple[str, ...]  # words that the tokenizer has no tokens for


@dataclass(frozen=True, slots=True)
class Words:
    """What a network is told of prompts."""

    told: Mapping[str, Any]  # a `Conditioning` each
    unread: tuple[str, ...]  # what it will not read of them: unknown words, and what comes too late


def _clean(prompt: str) -> str:
    return " ".join(prompt.split())


class PromptEncoder:
    """A UMT5 encoder and its tokenizer.

    Prompts are padded to `text_length`, and the padding's embeddings are zeros, as Wan was trained.
    """

    def __init__(self, encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, text_length: int) -> None:
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.text_length = text_length
        padding = tokenizer.pad_token_id
        if not isinstance(padding, int):
            raise ModelError("the tokenizer names no padding token")
        self._padding = padding

    @property
    def device(self) -> torch.device:
        """Where the encoder is asked."""
        return asked_on(self.encoder)

    def tokens(self, prompts: Sequence[str]) -> Int[Tensor, "b s"]:
        """Token numbers, cut and padded to `text_length`, on the CPU."""
        table = self.tokenizer(
            [_clean(p) for p in prompts],
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            return_tensors="pt",
        )
        return table["input_ids"]

    def embed(self, numbers: Int[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """The embeddings of token numbers, zeros at the padding, with gradients where they are wanted."""
        real = numbers.ne(self._padding)
        states = self.encoder(input_ids=numbers, attention_mask=real.long()).last_hidden_state
        return torch.where(real[..., None], states, 0.0)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "b s d"]:
        """The embeddings of prompts, padded with zeros to `text_length`.

        Each prompt is encoded by itself and at its own length, so that it does not depend on the prompts beside it.
        """
        padded = []
        for numbers in self.tokens(prompts):
            length = max(1, int(numbers.ne(self._padding).sum()))
            states = self.embed(numbers[None, :length].to(self.device))
            padded.append(torch.nn.functional.pad(states, (0, 0, 0, self.text_length - length)))
        return torch.cat(padded)

    def tell(self, prompts: Sequence[str], picture: UInt8[np.ndarray, "H W 3"]) -> Words:
        """What the network is told of each prompt. It looks at the start image as history alone."""
        reports = [self.report(prompt) for prompt in prompts]
        unread = [words for report in reports for words in (*report.unknown, report.lost) if words]
        return Words({prompt: self.encode([prompt]) for prompt in prompts}, tuple(dict.fromkeys(unread)))

    def report(self, prompt: str) -> PromptReport:
        """What the network will read of a prompt, and what not."""
        text = _clean(prompt)
        whole = self.tokenizer(text, return_offsets_mapping=True, verbose=False)
        kept = self.tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=self.text_length)
        end = max((stop for _, stop in kept["offset_mapping"]), default=0)
        unknown = [
            text[start:stop]
            for number, (start, stop) in zip(whole["input_ids"], whole["offset_mapping"], strict=True)
            if number == self.tokenizer.unk_token_id
        ]
        return PromptReport(
            prompt=prompt,
            tokens=len(whole["input_ids"]),
            limit=self.text_length,
            lost=text[end:].strip() if len(whole["input_ids"]) > self.text_length else "",
            unknown=tuple(dict.fromkeys(unknown)),
        )


@dataclass(frozen=True, slots=True)
class LentPromptEncoder:
    """A prompt encoder that is in memory only while it reads."""

    load: Callable[[], PromptEncoder]

    def tell(self, prompts: Sequence[str], picture: UInt8[np.ndarray, "H W 3"]) -> Words:
        """What the network is told of each prompt."""
        return borrow(self.load, lambda encoder: encoder.tell(prompts, picture))

    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "b s d"]:
        """The embeddings of prompts, padded with zeros."""
        return borrow(self.load, lambda encoder: encoder.encode(prompts))
