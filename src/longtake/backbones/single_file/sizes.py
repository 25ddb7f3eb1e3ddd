"""The config of a transformer, read off the names and shapes of its tensors.

A single file says nothing of itself. Where a config.json lies beside it, that is read instead, and has to fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from longtake.backbones.single_file.entries import TensorFile
from longtake.backbones.weights import read_json
from longtake.errors import ModelError

__all__ = ["ALIASES", "config_for", "kind_of"]

# What the official program calls its network; the class of diffusers reads its config and its weights as they are.
ALIASES = {"HunyuanVideoFramepackTransformer3DModel": "HunyuanVideoTransformer3DModelPacked"}

# A tensor that only this network has, or has first in this order.
_MARKS = {
    "clean_x_embedder.": "HunyuanVideoFramepackTransformer3DModel",
    "patch_short.": "HeliosTransformer3DModel",
    "x_embedder.": "HunyuanVideoTransformer3DModel",
    "img_in.proj.": "HunyuanVideoTransformer3DModel",
    "patch_embedding.": "WanTransformer3DModel",
}
_HEAD = 128  # channels of a head in every released Wan, which its tensors do not show
_HUNYUAN_AXES = {128: (16, 56, 56)}  # how the channels of a head are divided between time, rows and columns
Shapes = Mapping[str, tuple[int, ...]]


def kind_of(file: TensorFile) -> str:
    """The class of diffusers that a file's tensors look like; empty if none that is known.

    >>> from pathlib import Path
    >>> kind_of(TensorFile(Path("mine.safetensors"), {}))
    ''
    """
    return next((kind for mark, kind in _MARKS.items() if any(name.startswith(mark) for name in file.entries)), "")


def config_for(file: TensorFile, kind: str) -> dict[str, Any]:
    """The config of the network in a file: config.json beside it or, where there is none, what its tensors say.

    Raises:
        ModelError: the file or its config.json is another network's, or the tensors do not say enough.
    """
    looks = kind_of(file)
    if looks != kind:
        raise ModelError(f"{file.path} looks like {looks or 'no transformer that is known'}; expected {kind}")
    beside = file.path.parent / "config.json"
    if beside.is_file():
        config = read_json(beside)
        said = config.get("_class_name")
        if said not in (kind, ALIASES.get(kind, kind)):
            raise ModelError(f"{beside} says {said}, but {file.path.name} beside it is read by {kind}")
        return config
    shapes = {name: entry.shape for name, entry in file.entries.items()}
    read = {"WanTransformer3DModel": _wan, "HeliosTransformer3DModel": _unreadable}.get(kind, _hunyuan)
    try:
        return read(shapes)
    except LookupError as error:
        raise ModelError(f"{file.path}: {error.args[0]}; put the model's config.json beside it") from error


def _wan(shapes: Shapes) -> dict[str, Any]:
    width, channels, *patch = _shape(shapes, "patch_embedding.weight")
    if width % _HEAD:
        raise LookupError(f"a Wan of width {width} is none that was released, and does not show its heads")
    config = {
        "patch_size": tuple(patch),
        "num_attention_heads": width // _HEAD,
        "attention_head_dim": _HEAD,
        "in_channels": channels,
        "out_channels": _shape(shapes, "proj_out.weight", "head.head.weight")[0] // (patch[0] * patch[1] * patch[2]),
        "text_dim": _shape(shapes, "condition_embedder.text_embedder.linear_1.weight", "text_embedding.0.weight")[1],
        "freq_dim": _shape(shapes, "condition_embedder.time_embedder.linear_1.weight", "time_embedding.0.weight")[1],
        "ffn_dim": _shape(shapes, "blocks.0.ffn.net.0.proj.weight", "blocks.0.ffn.0.weight")[0],
        "num_layers": _count(shapes, "blocks"),
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes or "blocks.0.norm2.weight" in shapes,
    }
    image = ("condition_embedder.image_embedder.norm1.weight", "img_emb.proj.0.weight")
    if any(name in shapes for name in image):
        config |= {"image_dim": _shape(shapes, *image)[0], "added_kv_proj_dim": width}
    position = ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos")
    if any(name in shapes for name in position):
        config["pos_embed_seq_len"] = _shape(shapes, *position)[1]
    return config


def _hunyuan(shapes: Shapes) -> dict[str, Any]:
    width, channels, time, side, _ = _shape(shapes, "x_embedder.proj.weight", "img_in.proj.weight")
    double = ("transformer_blocks.0", "double_blocks.0")
    (head,) = _shape(
        shapes,
        f"{double[0]}.attn.norm_q.weight",
        f"{double[1]}.img_attn_q_norm.weight",
        f"{double[1]}.img_attn.norm.query_norm.scale",
    )
    if head not in _HUNYUAN_AXES:
        raise LookupError(f"a HunyuanVideo with heads of {head} is none that was released")
    mlp, _ = _shape(
        shapes,
        f"{double[0]}.ff.net.0.proj.weight",
        f"{double[1]}.img_mlp.fc1.weight",
        f"{double[1]}.img_mlp.0.weight",
    )
    time_text, guidance = "time_text_embed.", ("time_text_embed.guidance_embedder.", "guidance_in.")
    config = {
        "in_channels": channels,
        "out_channels": _shape(shapes, "proj_out.weight", "final_layer.linear.weight")[0] // (time * side * side),
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "num_layers": _count(shapes, "transformer_blocks", "double_blocks"),
        "num_single_layers": _count(shapes, "single_transformer_blocks", "single_blocks"),
        "num_refiner_layers": _count(
            shapes, "context_embedder.token_refiner.refiner_blocks", "txt_in.individual_token_refiner.blocks"
        ),
        "mlp_ratio": mlp / width,
        "patch_size": side,
        "patch_size_t": time,
        "guidance_embeds": any(name.startswith(guidance) for name in shapes),
        "text_embed_dim": _shape(shapes, "context_embedder.proj_in.weight", "txt_in.input_embedder.weight")[1],
        "pooled_projection_dim": _shape(
            shapes, f"{time_text}text_embedder.linear_1.weight", "vector_in.in_layer.weight"
        )[1],
        "rope_axes_dim": _HUNYUAN_AXES[head],
    }
    if any(name.startswith("clean_x_embedder.") for name in shapes):
        config |= {"has_clean_x_embedder": True, "has_image_proj": "image_projection.up.weight" in shapes}
        if config["has_image_proj"]:
            config["image_proj_dim"] = shapes["image_projection.up.weight"][1]
    return config


def _unreadable(shapes: Shapes) -> dict[str, Any]:
    raise LookupError("a Helios does not show how it divides its history")


def _shape(shapes: Shapes, *names: str) -> tuple[int, ...]:
    """That of a tensor, under one of the names it may have."""
    found = [shapes[name] for name in names if name in shapes]
    if not found:
        raise LookupError(f"there is no tensor {' or '.join(names)}")
    return found[0]


def _count(shapes: Shapes, *lists: str) -> int:
    numbers = (re.match(rf"(?:{'|'.join(map(re.escape, lists))})\.(\d+)\.", name) for name in shapes)
    return 1 + max((int(number[1]) for number in numbers if number), default=-1)
