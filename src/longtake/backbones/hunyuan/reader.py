"""Prompts and the start image as HunyuanVideo is told of them, by encoders that are in memory only while they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from longtake.backbones.hunyuan.conditioning import HunyuanConditioning
from longtake.backbones.hunyuan.images import ImageEncoder
from longtake.backbones.hunyuan.prompts import HunyuanPromptEncoder
from longtake.backbones.loan import borrow
from longtake.backbones.prompts import Words

__all__ = ["HunyuanReader"]


@dataclass(frozen=True, slots=True)
class HunyuanReader:
    """How to load what reads: Llama with CLIP, 15 GB, and SigLIP, 0.9 GB."""

    words: Callable[[], HunyuanPromptEncoder]
    images: Callable[[], ImageEncoder] | None = None  # None: for a network that looks at no image

    def tell(self, prompts: Sequence[str], picture: UInt8[np.ndarray, "H W 3"]) -> Words:
        """What the network is told of each prompt, beside the start image; the encoders are gone afterwards."""
        image: Float[Tensor, "1 m k"] | None = None
        if self.images is not None:
            image = borrow(self.images, lambda encoder: encoder.encode(picture))

        def read(encoder: HunyuanPromptEncoder) -> Words:
            told, unread = {}, []
            for prompt in prompts:
                text = encoder.encode([prompt])
                told[prompt] = HunyuanConditioning(text.tokens, text.mask, text.pooled, image)
                unread += encoder.report(prompt).cut
            return Words(told, tuple(dict.fromkeys(unread)))

        return borrow(self.words, read)
