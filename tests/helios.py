"""A whole Helios model of the real classes at tiny size, as its repository has it."""

import json
import warnings
from pathlib import Path

import torch
from diffusers import HeliosDMDScheduler, HeliosScheduler
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from transformers import T5TokenizerFast

from longtake.backbones.architecture import CodecShape, TextShape, new_codec, new_text_encoder

WORDS = ["a", "red", "ball", "and", "blue", "box", "rolls", "left", "right", "the", "camera", "turns", "blurry"]
MARKS = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
CHANNELS = 4
GAMMA = 0.33  # at the published 1/3 four neighbors cancel, and the pipeline's Cholesky root fails in float32 on a CPU
SHIFTED = {"use_dynamic_shifting": True, "gamma": GAMMA}
KINDS = {  # the pipeline's class and what else its index says, the scheduler
    "base": ({"_class_name": "HeliosPipeline"}, HeliosScheduler, {"stages": 1, **SHIFTED}),
    "mid": ({"_class_name": "HeliosPyramidPipeline", "is_cfg_zero_star": True}, HeliosScheduler, SHIFTED),
    "distilled": ({"_class_name": "HeliosPyramidPipeline", "is_distilled": True}, HeliosDMDScheduler, SHIFTED),
}
PARTS = {
    "transformer": ["diffusers", "HeliosTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
}


def save_helios(folder: Path, kind: str) -> Path:
    """Writes the model with random weights."""
    index, scheduler, config = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = HeliosTransformer3DModel(
            num_attention_heads=2, attention_head_dim=20, in_channels=CHANNELS, out_channels=CHANNELS, text_dim=16,
            freq_dim=16, ffn_dim=48, num_layers=2, rope_dim=(8, 6, 6),
        )  # fmt: skip
        for parameter in transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        transformer.save_pretrained(folder / "transformer")
        new_codec(CodecShape(encoder_width=4, decoder_width=4, channels=CHANNELS)).save_pretrained(folder / "vae")
        tokenizer = T5TokenizerFast(vocab=[*MARKS, *((f"\u2581{word}", -1.0) for word in WORDS)], extra_ids=0)
        encoder = new_text_encoder(TextShape(width=16, layers=1, heads=2, feedforward=16), len(tokenizer))
        encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of NumPy, about diffusers' way
        scheduler(**config).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(
        json.dumps(index | PARTS | {"scheduler": ["diffusers", scheduler.__name__]})
    )
    return folder
