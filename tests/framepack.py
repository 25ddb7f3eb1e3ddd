"""A whole FramePack model of the real classes at tiny size, as its three repositories have it in one folder."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from longtake.backbones.hunyuan.prompts import TEMPLATE

WORDS = ["a", "red", "ball", "and", "blue", "box", "rolls", "left", "right", "the", "camera", "turns", "blurry"]
# What makes 95 tokens of the template before a prompt, as with the released tokenizer: its marks, and a word in two.
MARKS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n\n", "atmo"]
CHANNELS, SIDE = 16, 28


def save_framepack(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Writes the model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_parts(folder, dtype)
    names = ["transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "image_encoder"]
    index = {"_class_name": "HunyuanVideoFramepackPipeline"} | {name: ["a", "b"] for name in names}
    (folder / "model_index.json").write_text(json.dumps(index))
    settings = {"schedules": {"inverted": "f1k1_x_g9_f1k1f2k2f16k4_td", "vanilla": "td_f1k1_x_f16k4f2k2f1k1_g9"}}
    settings |= {"order": "inverted", "gaps": "clamped", "missing": "zeros", "solver": "unipc", "steps": 2}
    settings |= {"distilled_guidance": 10.0, "guidance": 1.0, "height": 32, "width": 48, "fps": 30.0}
    (folder / "longtake.json").write_text(json.dumps(settings))
    return folder


def save_parts(folder, dtype):
    llama_tokenizer, clip_tokenizer = tokenizers()
    llama_tokenizer.save_pretrained(folder / "tokenizer")
    clip_tokenizer.save_pretrained(folder / "tokenizer_2")
    processor(SIDE).save_pretrained(folder / "feature_extractor")
    for name, make in networks(len(llama_tokenizer), len(clip_tokenizer)).items():
        network = make()
        if name == "transformer":
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
            network.to(dtype)
        network.save_pretrained(folder / name)


def networks(llama_words, clip_words):
    """What makes each network, with so many words in the tables of the two that read."""
    shape = {"num_attention_heads": 2, "pad_token_id": 0}
    return {
        "transformer": lambda: HunyuanVideoFramepackTransformer3DModel(
            in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=2, attention_head_dim=16, num_layers=1,
            num_single_layers=2, num_refiner_layers=1, mlp_ratio=2.0, patch_size=2, patch_size_t=1, text_embed_dim=16,
            pooled_projection_dim=8, rope_axes_dim=(4, 6, 6), has_image_proj=True, image_proj_dim=12,
            has_clean_x_embedder=True,
        ),
        "vae": lambda: AutoencoderKLHunyuanVideo(
            block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2
        ),
        "text_encoder": lambda: LlamaModel(
            LlamaConfig(
                vocab_size=llama_words, hidden_size=16, intermediate_size=32, num_hidden_layers=4,
                max_position_embeddings=512, initializer_range=0.3, **shape,
            )
        ),
        "text_encoder_2": lambda: CLIPTextModel(
            CLIPTextConfig(
                vocab_size=clip_words, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
                max_position_embeddings=77, bos_token_id=2, eos_token_id=3, **shape,
            )
        ),
        "image_encoder": lambda: SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=12, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
                patch_size=7,
            )
        ),
    }  # fmt: skip


def processor(side):
    """What brings a picture to the size that SigLIP sees."""
    return SiglipImageProcessorPil(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def tokenizers():
    """Llama's and CLIP's, of the few words that tests say."""
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    known = [*WORDS, "sphere", *(word for word, _ in splitter.pre_tokenize_str(TEMPLATE))]
    return tokenizer_of(known, splitter, MARKS), tokenizer_of(WORDS, splitter)


def tokenizer_of(known, splitter, marks=()):
    """A tokenizer with a number a word, punctuation apart; CLIP's closes a prompt with a mark, Llama's does not."""
    table = {mark: number for number, mark in enumerate(("<pad>", "<unk>", "<s>", "</s>"))}
    table |= {word: len(table) + number for number, word in enumerate(dict.fromkeys(known))}
    tokenizer = Tokenizer(WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A" if marks else "<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.add_special_tokens({"additional_special_tokens": list(marks)})
    return fast
