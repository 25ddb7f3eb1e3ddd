"""What the layers of a network are called by those who published it, store it in one file, or train LoRAs for it.

Four kinds of names are in use, and each of them also flattened, as kohya's and musubi's trainers write it:

    the network's own    transformer_blocks.0.attn.to_q             blocks.0.attn1.to_q
    original Hunyuan's   double_blocks.0.img_attn_qkv  (fused)
    ComfyUI's Hunyuan    double_blocks.0.img_attn.qkv  (fused)
    original Wan's                                                  blocks.0.self_attn.q
    flattened            double_blocks_0_img_attn_qkv               blocks_0_self_attn_q

A flattened name cannot be taken apart again (is `to_q` one word or two?), so names are not translated: all names that
the layers of a network may have are written down, and those in a file are looked up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Place", "places"]

# An original name -> the layers that share it here, in the order of their rows; `#` is a number.
_HUNYUAN = {
    "img_in.proj": ("x_embedder.proj",),
    "time_in.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "guidance_in.mlp.0": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.mlp.2": ("time_text_embed.guidance_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "txt_in.input_embedder": ("context_embedder.proj_in",),
    "txt_in.t_embedder.mlp.0": ("context_embedder.time_text_embed.timestep_embedder.linear_1",),
    "txt_in.t_embedder.mlp.2": ("context_embedder.time_text_embed.timestep_embedder.linear_2",),
    "txt_in.c_embedder.linear_1": ("context_embedder.time_text_embed.text_embedder.linear_1",),
    "txt_in.c_embedder.linear_2": ("context_embedder.time_text_embed.text_embedder.linear_2",),
    "txt_in.individual_token_refiner.blocks.#.self_attn_qkv": (
        "context_embedder.token_refiner.refiner_blocks.#.attn.to_q",
        "context_embedder.token_refiner.refiner_blocks.#.attn.to_k",
        "context_embedder.token_refiner.refiner_blocks.#.attn.to_v",
    ),
    "txt_in.individual_token_refiner.blocks.#.self_attn_proj": (
        "context_embedder.token_refiner.refiner_blocks.#.attn.to_out.0",
    ),
    "txt_in.individual_token_refiner.blocks.#.norm1": ("context_embedder.token_refiner.refiner_blocks.#.norm1",),
    "txt_in.individual_token_refiner.blocks.#.norm2": ("context_embedder.token_refiner.refiner_blocks.#.norm2",),
    "txt_in.individual_token_refiner.blocks.#.mlp.fc1": (
        "context_embedder.token_refiner.refiner_blocks.#.ff.net.0.proj",
    ),
    "txt_in.individual_token_refiner.blocks.#.mlp.fc2": ("context_embedder.token_refiner.refiner_blocks.#.ff.net.2",),
    "txt_in.individual_token_refiner.blocks.#.adaLN_modulation.1": (
        "context_embedder.token_refiner.refiner_blocks.#.norm_out.linear",
    ),
    "double_blocks.#.img_attn_qkv": (
        "transformer_blocks.#.attn.to_q",
        "transformer_blocks.#.attn.to_k",
        "transformer_blocks.#.attn.to_v",
    ),
    "double_blocks.#.img_attn_q_norm": ("transformer_blocks.#.attn.norm_q",),
    "double_blocks.#.img_attn_k_norm": ("transformer_blocks.#.attn.norm_k",),
    "double_blocks.#.img_attn_proj": ("transformer_blocks.#.attn.to_out.0",),
    "double_blocks.#.img_mod.linear": ("transformer_blocks.#.norm1.linear",),
    "double_blocks.#.img_mlp.fc1": ("transformer_blocks.#.ff.net.0.proj",),
    "double_blocks.#.img_mlp.fc2": ("transformer_blocks.#.ff.net.2",),
    "double_blocks.#.txt_attn_qkv": (
        "transformer_blocks.#.attn.add_q_proj",
        "transformer_blocks.#.attn.add_k_proj",
        "transformer_blocks.#.attn.add_v_proj",
    ),
    "double_blocks.#.txt_attn_q_norm": ("transformer_blocks.#.attn.norm_added_q",),
    "double_blocks.#.txt_attn_k_norm": ("transformer_blocks.#.attn.norm_added_k",),
    "double_blocks.#.txt_attn_proj": ("transformer_blocks.#.attn.to_add_out",),
    "double_blocks.#.txt_mod.linear": ("transformer_blocks.#.norm1_context.linear",),
    "double_blocks.#.txt_mlp.fc1": ("transformer_blocks.#.ff_context.net.0.proj",),
    "double_blocks.#.txt_mlp.fc2": ("transformer_blocks.#.ff_context.net.2",),
    "single_blocks.#.linear1": (
        "single_transformer_blocks.#.attn.to_q",
        "single_transformer_blocks.#.attn.to_k",
        "single_transformer_blocks.#.attn.to_v",
        "single_transformer_blocks.#.proj_mlp",
    ),
    "single_blocks.#.q_norm": ("single_transformer_blocks.#.attn.norm_q",),
    "single_blocks.#.k_norm": ("single_transformer_blocks.#.attn.norm_k",),
    "single_blocks.#.linear2": ("single_transformer_blocks.#.proj_out",),
    "single_blocks.#.modulation.linear": ("single_transformer_blocks.#.norm.linear",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
_WAN = {
    "time_embedding.0": ("condition_embedder.time_embedder.linear_1",),
    "time_embedding.2": ("condition_embedder.time_embedder.linear_2",),
    "time_projection.1": ("condition_embedder.time_proj",),
    "text_embedding.0": ("condition_embedder.text_embedder.linear_1",),
    "text_embedding.2": ("condition_embedder.text_embedder.linear_2",),
    "img_emb.emb_pos": ("condition_embedder.image_embedder.pos_embed",),
    "img_emb.proj.0": ("condition_embedder.image_embedder.norm1",),
    "img_emb.proj.1": ("condition_embedder.image_embedder.ff.net.0.proj",),
    "img_emb.proj.3": ("condition_embedder.image_embedder.ff.net.2",),
    "img_emb.proj.4": ("condition_embedder.image_embedder.norm2",),
    "blocks.#.modulation": ("blocks.#.scale_shift_table",),
    "blocks.#.norm3": ("blocks.#.norm2",),
    "blocks.#.self_attn.norm_q": ("blocks.#.attn1.norm_q",),
    "blocks.#.self_attn.norm_k": ("blocks.#.attn1.norm_k",),
    "blocks.#.self_attn.q": ("blocks.#.attn1.to_q",),
    "blocks.#.self_attn.k": ("blocks.#.attn1.to_k",),
    "blocks.#.self_attn.v": ("blocks.#.attn1.to_v",),
    "blocks.#.self_attn.o": ("blocks.#.attn1.to_out.0",),
    "blocks.#.cross_attn.norm_q": ("blocks.#.attn2.norm_q",),
    "blocks.#.cross_attn.norm_k": ("blocks.#.attn2.norm_k",),
    "blocks.#.cross_attn.norm_k_img": ("blocks.#.attn2.norm_added_k",),
    "blocks.#.cross_attn.q": ("blocks.#.attn2.to_q",),
    "blocks.#.cross_attn.k": ("blocks.#.attn2.to_k",),
    "blocks.#.cross_attn.v": ("blocks.#.attn2.to_v",),
    "blocks.#.cross_attn.o": ("blocks.#.attn2.to_out.0",),
    "blocks.#.cross_attn.k_img": ("blocks.#.attn2.add_k_proj",),
    "blocks.#.cross_attn.v_img": ("blocks.#.attn2.add_v_proj",),
    "blocks.#.ffn.0": ("blocks.#.ffn.net.0.proj",),
    "blocks.#.ffn.2": ("blocks.#.ffn.net.2",),
    "head.modulation": ("scale_shift_table",),
    "head.head": ("proj_out",),
}
# How ComfyUI rewrites Hunyuan's names when it loads a model, and saves them.
_COMFY = (
    ("t_embedder.mlp.0", "t_embedder.in_layer"),
    ("t_embedder.mlp.2", "t_embedder.out_layer"),
    ("c_embedder.linear_1", "c_embedder.in_layer"),
    ("c_embedder.linear_2", "c_embedder.out_layer"),
    ("_mod.linear", "_mod.lin"),
    ("modulation.linear", "modulation.lin"),
    ("mlp.fc1", "mlp.0"),
    ("mlp.fc2", "mlp.2"),
    ("_attn_q_norm", "_attn.norm.query_norm"),
    ("_attn_k_norm", "_attn.norm.key_norm"),
    (".q_norm", ".norm.query_norm"),
    (".k_norm", ".norm.key_norm"),
    ("img_attn_", "img_attn."),
    ("txt_attn_", "txt_attn."),
    ("_in.mlp.0", "_in.in_layer"),
    ("_in.mlp.2", "_in.out_layer"),
)
_SWAPPED = "final_layer.adaLN_modulation.1"  # (shift, scale) in the original, (scale, shift) here


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer of a file belongs: the network's layers that take its output rows, one after the other."""

    layers: tuple[str, ...]
    swapped: bool = False  # the two halves of the rows change places


def places(layers: Collection[str]) -> dict[str, Place]:
    """The place of every name that a file may use, for a network that has these layers.

    >>> places(["blocks.0.attn1.to_q"]) == dict.fromkeys(
    ...     ["blocks.0.attn1.to_q", "blocks_0_attn1_to_q", "blocks.0.self_attn.q", "blocks_0_self_attn_q"],
    ...     Place(("blocks.0.attn1.to_q",)),
    ... )
    True
    """
    known = set(layers)
    numbers = {part for layer in layers for part in layer.split(".") if part.isdigit()}
    found = {layer: Place((layer,)) for layer in layers}
    hunyuan = any(layer.startswith("transformer_blocks.") for layer in layers)
    for original, here in (_HUNYUAN if hunyuan else _WAN).items():
        for number in numbers if "#" in original else ("",):
            there = tuple(layer.replace("#", number) for layer in here)
            if known.issuperset(there):
                for name in {original, _in_comfy(original)} if hunyuan else {original}:
                    found[name.replace("#", number)] = Place(there, swapped=original == _SWAPPED)
    return found | {name.replace(".", "_"): place for name, place in found.items()}


def _in_comfy(name: str) -> str:
    for original, there in _COMFY:
        name = name.replace(original, there)
    return name
