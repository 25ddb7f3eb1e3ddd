"""Prompts and the start image as Wan's image-to-video network is told of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from longtake.backbones.codec import Codec
from longtake.backbones.loan import borrow
from longtake.backbones.prompts import LentPromptEncoder, PromptEncoder, Words
from longtake.backbones.visiting import asked_on
from longtake.backbones.wan import WanConditioning

__all__ = ["ClipEncoder", "WanReader", "blank_latent"]


class ClipEncoder:
    """CLIP's vision tower and its processor, the one of Pillow: torchvision's rounds otherwise when it resizes."""

    def __init__(self, clip: CLIPVisionModel, processor: CLIPImageProcessorPil) -> None:
        self.clip, self.processor = clip, processor

    @torch.no_grad()
    def encode(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "1 m k"]:
        """The last hidden state but one, which Wan was trained on: 257 tokens of 1280 in the released model."""
        pixels = self.processor(images=picture, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(asked_on(self.clip), self.clip.dtype)
        return self.clip(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]


def blank_latent(codec: Codec) -> Float[Tensor, " c"]:
    """What stands beside the noise where no image is given: the latent of gray images, far from edges and beginning."""
    side = 12 * codec.spatial_ratio
    latents = codec.encode(torch.zeros(1, 3, 1 + 4 * codec.temporal_ratio, side, side, device=codec.device))
    return latents[0, :, -1, 6, 6]


@dataclass(frozen=True, slots=True)
class WanReader:
    """How to load what reads: UMT5, 11.4 GB, and CLIP, 1.3 GB; and the codec, which says what no image looks like."""

    words: PromptEncoder | LentPromptEncoder
    images: Callable[[], ClipEncoder]
    codec: Codec

    def tell(self, prompts: Sequence[str], picture: UInt8[np.ndarray, "H W 3"]) -> Words:
        """What the network is told of each prompt, beside the start image; CLIP is gone afterwards."""
        words, blank = self.words.tell(prompts, picture), blank_latent(self.codec)
        image = borrow(self.images, lambda encoder: encoder.encode(picture))
        told = {prompt: WanConditioning(text, image, blank) for prompt, text in words.told.items()}
        return Words(told, words.unread)
