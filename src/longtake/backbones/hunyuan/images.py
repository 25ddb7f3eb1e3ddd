"""A start image as the tokens of SigLIP, which FramePack reads before the prompt's."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import SiglipImageProcessorPil, SiglipVisionModel

from longtake.backbones.visiting import asked_on

__all__ = ["ImageEncoder"]


class ImageEncoder:
    """SigLIP's vision tower and its processor, the one of Pillow: torchvision's rounds otherwise when it resizes."""

    def __init__(self, siglip: SiglipVisionModel, processor: SiglipImageProcessorPil) -> None:
        self.siglip = siglip
        self.processor = processor

    @torch.no_grad()
    def encode(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "1 n d"]:
        """The last hidden state of a picture that is cropped already: 729 tokens of 1152 in the released model."""
        pixels = self.processor(images=picture, return_tensors="pt")["pixel_values"]
        return self.siglip(pixel_values=pixels.to(asked_on(self.siglip), self.siglip.dtype)).last_hidden_state
