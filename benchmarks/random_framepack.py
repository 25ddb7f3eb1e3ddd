"""A FramePack of random weights in a hub's cache: the published shapes, types and folders, and nothing learned.

Transformer (12.874 B, bfloat16), Llama (7.505 B), CLIP and SigLIP (float16) and autoencoder (float32) have as many
parameters as those of the catalog, to the last one: 42.8 GB. Matrices, kernels and embeddings are drawn from a normal
distribution of deviation 0.02; what is multiplied with is one, what is added is zero. The last layer of the decoder is
twenty times smaller: noise at full contrast is no picture that a video file is made for. A tensor belongs to its name,
and is drawn where the device is. Tokenizers know a few words; the tables that they point into have their full size.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from backbone_13b import FULL
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel, ModelMixin
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, SiglipVisionConfig, SiglipVisionModel

from longtake.backbones import MODELS, find_parts
from longtake.backbones.catalog import Part
from longtake.backbones.parts import stem_of

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import framepack

MODEL = "framepack-i2v"
LAYERS = 32  # of Llama
SHARD = 2 << 30  # bytes
THREADS = 8
COMMIT = "0" * 40
DEVIATION, QUIET = 0.02, {"decoder.conv_out.conv.weight": 0.001}
TYPES = {"transformer": torch.bfloat16, "vae": torch.float32}


def save_random(home: Path, device: torch.device, tiny: bool = False, layers: int = LAYERS) -> None:
    """Writes what a cache lacks of the model."""
    if not find_parts(MODELS[MODEL], home).absent:
        return
    tokenizers = framepack.tokenizers()
    networks = framepack.networks(*map(len, tokenizers)) if tiny else full_networks(layers)
    told = dict(zip(("tokenizer", "tokenizer_2"), tokenizers, strict=True))
    told["feature_extractor"] = framepack.processor(framepack.SIDE if tiny else 384)
    with ThreadPoolExecutor(THREADS) as pool:
        writing = []
        for part in MODELS[MODEL].parts:
            folder = cache_of(home, part) / "snapshots" / COMMIT / part.folder
            if part.name in told:
                told[part.name].save_pretrained(folder)
            else:
                writing += [pool.submit(job) for job in jobs(part, networks[part.name], folder, device)]
        for job in writing:
            job.result()
    for part in MODELS[MODEL].parts:  # last: without its branch a repository is not there
        branch = cache_of(home, part) / "refs" / "main"
        branch.parent.mkdir(exist_ok=True)
        branch.write_text(COMMIT)


def cache_of(home: Path, part: Part) -> Path:
    """Where a cache has the repository of a part."""
    return home / f"models--{part.repo.replace('/', '--')}"


def full_networks(layers: int) -> dict[str, Callable[[], Any]]:
    """What makes each network at its published size."""
    return {
        "transformer": lambda: HunyuanVideoFramepackTransformer3DModel(**FULL),
        "vae": AutoencoderKLHunyuanVideo,
        "text_encoder": lambda: LlamaModel(
            LlamaConfig(
                vocab_size=128320, hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers,
                num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192, rms_norm_eps=1e-5,
                pad_token_id=0,
            )
        ),
        "text_encoder_2": lambda: CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, bos_token_id=2,
                eos_token_id=3, pad_token_id=0,
            )
        ),
        "image_encoder": lambda: SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384,
                patch_size=14,
            )
        ),
    }  # fmt: skip


def jobs(part: Part, make: Callable[[], Any], folder: Path, device: torch.device) -> list[Callable[[], None]]:
    """Writes the config of a network; gives what writes each of its files."""
    with torch.device("meta"):
        network = make()
    if isinstance(network, ModelMixin):
        network.save_config(folder)
    else:
        network.config.save_pretrained(folder)
    dtype, stem = TYPES.get(part.name, torch.float16), stem_of(part)
    shards = shards_of({name: tensor.shape for name, tensor in network.state_dict().items()}, dtype)
    if len(shards) == 1:
        return [partial(write, folder / f"{stem}.safetensors", shards[0], dtype, device)]
    names = [f"{stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    size = sum(bytes_of(shape, dtype) for shard in shards for shape in shard.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    return [partial(write, folder / name, shard, dtype, device) for name, shard in zip(names, shards, strict=True)]


def shards_of(shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> list[dict[str, torch.Size]]:
    """The tensors of each file."""
    shards, size = [dict[str, torch.Size]()], 0
    for name, shape in shapes.items():
        size += bytes_of(shape, dtype)
        if shards[-1] and size > SHARD:
            shards.append({})
            size = bytes_of(shape, dtype)
        shards[-1][name] = shape
    return shards


def bytes_of(shape: torch.Size, dtype: torch.dtype) -> int:
    return shape.numel() * dtype.itemsize


def write(path: Path, shapes: Mapping[str, torch.Size], dtype: torch.dtype, device: torch.device) -> None:
    """One file."""
    save_file({name: drawn(name, shape, dtype, device).cpu() for name, shape in shapes.items()}, path, {"format": "pt"})


def drawn(name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if name.endswith("bias"):
        return tensor.zero_()
    if tensor.ndim == 1:
        return tensor.fill_(1.0)
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    return tensor.normal_(std=QUIET.get(name, DEVIATION), generator=generator)
