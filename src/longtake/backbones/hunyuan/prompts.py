"""Prompts as HunyuanVideo reads them: Llama's hidden states of a template, and CLIP's pooled vector of the prompt.

    [ template, 95 tokens | prompt and what closes its turn, at most 256 ]  -> Llama -> hidden state -3 -> [95:]
    [ prompt, at most 77 ]                                                  -> CLIP  -> pooled output

The numbers are those of the official FramePack program, and so is the treatment of a prompt: its spaces and lines are
kept as they are. What is cut of a long one is told by `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import CLIPTextModel, LlamaModel, PreTrainedTokenizerFast

from longtake.backbones.prompts import PromptReport
from longtake.backbones.visiting import asked_on
from longtake.errors import ModelError

__all__ = ["CLIP_LIMIT", "LENGTH", "LIMIT", "GuidedText", "HunyuanPromptEncoder", "HunyuanReport", "HunyuanText"]

TEMPLATE: str = DEFAULT_PROMPT_TEMPLATE["template"]
CROP: int = DEFAULT_PROMPT_TEMPLATE["crop_start"]  # tokens of the template before the prompt, the first mark included
LIMIT = 256  # tokens that Llama reads after those
CLIP_LIMIT = 77  # tokens that CLIP reads, both marks included
LENGTH = 512  # to which the official program pads
LAYER = -3  # of the hidden states: two layers before the last


@dataclass(frozen=True, slots=True)
class HunyuanText:
    """What the network reads of prompts. Where the mask is false, tokens are zeros."""

    tokens: Float[Tensor, "b s d"]
    mask: Bool[Tensor, "b s"]
    pooled: Float[Tensor, "b p"]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> HunyuanText:
        """The same on another device, in another precision."""
        return HunyuanText(self.tokens.to(device, dtype), self.mask.to(device), self.pooled.to(device, dtype))

    def zeros(self) -> HunyuanText:
        """Zeros in the same shape, the mask kept: what stands for a negative prompt that is never read."""
        return HunyuanText(torch.zeros_like(self.tokens), self.mask, torch.zeros_like(self.pooled))


@dataclass(frozen=True, slots=True)
class GuidedText:
    """What a network is led to, and what it is led away from."""

    positive: HunyuanText
    negative: HunyuanText


@dataclass(frozen=True, slots=True)
class HunyuanReport:
    """What became of a prompt in each of its two readers."""

    llama: PromptReport  # of the 256 tokens after the template's
    clip: PromptReport

    @property
    def cut(self) -> tuple[str, ...]:
        """A sentence for each reader that does not see all of the prompt."""
        return tuple(
            f"{name} reads {report.limit} of {report.tokens} tokens and loses: {report.lost or 'the end mark'}"
            for name, report in (("Llama", self.llama), ("CLIP", self.clip))
            if report.tokens > report.limit
        )


class HunyuanPromptEncoder:
    """Llama and CLIP with their tokenizers, each reading a prompt in its own way."""

    def __init__(
        self,
        llama: LlamaModel,
        tokenizer: PreTrainedTokenizerFast,
        clip: CLIPTextModel,
        clip_tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        self.llama = llama
        self.tokenizer = tokenizer
        self.clip = clip
        self.clip_tokenizer = clip_tokenizer
        before = len(tokenizer(TEMPLATE.partition("{}")[0])["input_ids"])
        if before < CROP:
            raise ModelError(
                f"the tokenizer makes {before} tokens of the template before a prompt, of which {CROP} are cropped: "
                f"the prompt's own would be lost; the tokenizer of HunyuanVideo would do"
            )

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], length: int = LENGTH) -> HunyuanText:
        """What the network reads of prompts, padded with zeros to `length` tokens, 256 at least.

        Each prompt is read by itself and at its own length: Llama and CLIP look only back, so that what would be padded
        behind it has no say.
        """
        if length < LIMIT:
            raise ValueError(f"a length of {length}: a prompt may have {LIMIT} tokens")
        states = [self._states(prompt) for prompt in prompts]
        tokens = [torch.nn.functional.pad(state, (0, 0, 0, length - len(state))) for state in states]
        sizes = torch.tensor([len(state) for state in states], device=asked_on(self.llama))
        return HunyuanText(
            tokens=torch.stack(tokens),
            mask=torch.arange(length, device=sizes.device) < sizes[:, None],
            pooled=torch.cat([self._pooled(prompt) for prompt in prompts]),
        )

    def encode_guided(
        self, prompts: Sequence[str], negatives: Sequence[str], guidance: float, length: int = LENGTH
    ) -> GuidedText:
        """Prompts with their negatives, which are read in the same way; zeros where guidance is 1 and asks for none."""
        positive = self.encode(prompts, length)
        return GuidedText(positive, positive.zeros() if guidance == 1.0 else self.encode(negatives, length))

    def report(self, prompt: str) -> HunyuanReport:
        """What each reader sees of a prompt, and what is cut."""
        before, after = TEMPLATE.split("{}")
        text = before + prompt + after
        return HunyuanReport(
            llama=_report(self.tokenizer, prompt, text, len(before), CROP, LIMIT),
            clip=_report(self.clip_tokenizer, prompt, prompt, 0, 0, CLIP_LIMIT),
        )

    def _states(self, prompt: str) -> Float[Tensor, "s d"]:
        """Llama's hidden states of the tokens behind the template's."""
        text = TEMPLATE.replace("{}", prompt)
        read = self.tokenizer(text, truncation=True, max_length=CROP + LIMIT, return_tensors="pt")
        numbers = read["input_ids"].to(asked_on(self.llama))
        return self.llama(input_ids=numbers, output_hidden_states=True).hidden_states[LAYER][0, CROP:]

    def _pooled(self, prompt: str) -> Float[Tensor, "1 p"]:
        """CLIP's state of the end mark."""
        read = self.clip_tokenizer(prompt, truncation=True, max_length=CLIP_LIMIT, return_tensors="pt")
        return self.clip(input_ids=read["input_ids"].to(asked_on(self.clip))).pooler_output


def _report(
    tokenizer: PreTrainedTokenizerFast, prompt: str, text: str, begins: int, crop: int, limit: int
) -> PromptReport:
    """What a tokenizer keeps of a prompt that begins at that letter of the text, behind `crop` tokens."""
    tokens = len(tokenizer(text, verbose=False)["input_ids"]) - crop
    if tokens <= limit:
        return PromptReport(prompt, tokens, limit, lost="", unknown=())
    kept = tokenizer(text, truncation=True, max_length=crop + limit, return_offsets_mapping=True)["offset_mapping"]
    end = max(stop for _, stop in kept) - begins
    return PromptReport(prompt, tokens, limit, lost=prompt[max(0, end) :].strip(), unknown=())
