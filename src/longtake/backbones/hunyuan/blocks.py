"""HunyuanVideo's blocks with nothing between their products but one pass over memory each.

diffusers' blocks join the tokens of video and text and part them again three times, keep the attention's and the MLP's
results side by side for one product, and go through queries and keys six times in float32. At 18,485 tokens of the
13 B model that is a third of a step, and compiled still an eighth. Here

    video, text -> normed, into their parts of one tensor
    q, k, v     -> one product where their weights lie together, each stream's into its part of one tensor
    q, k        -> normed and turned in place
    MLP         -> GELU in the product's epilogue
    attention, MLP -> two products that add up, instead of one of both joined
    in fp8      -> rounded by what makes the tokens: a norm once for q, k, v and MLP; GELU, beside attention
    x + gate y  -> with the next norm, where there is one in the same block
    last block  -> of the video's tokens only those that the seams keep are computed, of the text's none

The modules stay where they are, and are called where they are not plain linear layers: adapters, quantized layers,
tables of modulation, streamed weights, step caches and attention kernels work as before. Where devices share the
sequence, heads are exchanged once keys and queries are normed and turned, or, by collectives, values and keys before
that. With gradients or with a processor of another kind, a block is diffusers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_hunyuan_video import (
    HunyuanVideoAttnProcessor2_0,
    HunyuanVideoSingleTransformerBlock,
    HunyuanVideoTransformerBlock,
)
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.fused import (
    Rounded,
    gated_sum,
    gated_sum_norm,
    is_plain,
    linear_gelu,
    modulated_norm,
    rotate_normed,
    rounded_gelu,
)
from longtake.backbones.hunyuan.network import HunyuanTransformer
from longtake.backbones.parallel.processors import JointProcessor
from longtake.backbones.placement.fp8 import computes_in_fp8, multiply_into, room_for
from longtake.backbones.placement.innermost import innermost_forward, place_innermost
from longtake.backbones.placement.storage import FP8
from longtake.backbones.seams import Seams

__all__ = ["fuse_blocks"]

_PROJECTIONS, _ADDED = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")

Phases = tuple[Float[Tensor, "m e"], Float[Tensor, "m e"]]
Streams = tuple[Float[Tensor, "b m d"], Float[Tensor, "b s d"]]  # tokens of the video with its history, of the text


class _Fused:
    """A block's forward. Calls that it is not made for go to the one before it."""

    def __init__(self, block: nn.Module, forward: Callable[..., Streams], before: Callable[..., Streams]) -> None:
        self.block, self.forward, self.before = block, forward, before

    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        attention_mask: Tensor | None = None,
        phases: Phases | None = None,
        *args: Any,
        image_rotary_emb: Phases | None = None,
        freqs_cis: Phases | None = None,
    ) -> Streams:
        phases = phases or image_rotary_emb or freqs_cis
        streams = hidden_states, encoder_hidden_states
        if phases is None or torch.is_grad_enabled() or not _is_plain(self.block.get_submodule("attn")):
            return self.before(*streams, temb, attention_mask, phases)
        by_tokens = _by_tokens(hidden_states), _by_tokens(encoder_hidden_states)
        return self.forward(self.block, by_tokens, temb, attention_mask, phases)


def _by_tokens(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """With each token's numbers together: a patch embedding leaves each channel's, where nothing is joined to them."""
    return x if x.stride(2) == 1 else x.contiguous()


def fuse_blocks(transformer: HunyuanTransformer, seams: Seams, together: bool = True) -> None:
    """Lets every block of these two kinds compute as said above, from the weights that it has. Twice is once.

    Where the network is by then, the weights of queries, keys and values come to lie together; moved or streamed later,
    they are three products again, so that `together` is for those that stay: 4.5 GB of the 13 B network are copied.
    Before adapters, tables or streaming, or after the first two. Not to be compiled: there is nothing left to fuse.
    """
    blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    for block in blocks:
        before, forward = innermost_forward(block), _FORWARDS.get(type(block))
        if forward is None or isinstance(before, _Fused):
            continue
        if forward is _single and block is blocks[-1]:
            forward = partial(_single, unseen=lambda: 0 if seams.entry is None else seams.entry.length)
        place_innermost(block, _Fused(block, forward, before))
        for names in (_PROJECTIONS, _ADDED) if together else ():
            _lay_together([block.get_submodule("attn")._modules.get(name) for name in names])


def _double(
    block: HunyuanVideoTransformerBlock, streams: Streams, temb: Tensor, mask: Tensor | None, phases: Phases
) -> Streams:
    """Video and text with weights of their own, and one attention."""
    attn: Any = block.attn  # whose parts are declared as what may be absent
    m = streams[0].shape[1]
    norms = block.norm1, block.norm1_context
    vectors = [_modulation(norm, temb, 6) for norm in norms]
    layers = [_layers(attn, names) for names in (_PROJECTIONS, _ADDED)]
    normed = [room_for(each, x, x.shape[1]) for each, x in zip(layers, streams, strict=True)]
    for x, norm, (shift, scale, *_), out in zip(streams, norms, vectors, normed, strict=True):
        modulated_norm(x, scale, shift, norm.norm.eps, out)
    projected = _projected(layers, normed, attn.heads)

    def turn(x: Float[Tensor, "b n a e"], own: Any, added: Any) -> Float[Tensor, "b n a e"]:
        rotate_normed(x[:, :m], own.weight, own.eps, *phases)
        rotate_normed(x[:, m:], added.weight, added.eps, *(part[:0] for part in phases))
        return x

    attended = _attend(
        attn,
        projected,
        lambda query: turn(query, attn.norm_q, attn.norm_added_q),
        lambda key: turn(key, attn.norm_k, attn.norm_added_k),
        mask,
    )
    results = attn.to_out[1](attn.to_out[0](attended[:, :m])), attn.to_add_out(attended[:, m:])
    norms, mlps = (block.norm2, block.norm2_context), (block.ff, block.ff_context)
    made = []
    for x, result, vector, norm, mlp in zip(streams, results, vectors, norms, mlps, strict=True):
        _, _, gate, shift, scale, last = vector
        inner = room_for([mlp.get_submodule("net.0.proj")], x, x.shape[1])
        x = gated_sum_norm(x, result, gate, scale, shift, norm.eps, inner)
        made.append(gated_sum(x, _mlp(mlp, inner), last))
    return made[0], made[1]


def _single(
    block: HunyuanVideoSingleTransformerBlock,
    streams: Streams,
    temb: Tensor,
    mask: Tensor | None,
    phases: Phases,
    unseen: Callable[[], int] | None = None,
) -> Streams:
    """Video and text with the same weights, MLP beside attention.

    With `unseen` this is the last block: that many tokens of the video, and the text, are seen by nothing after it, and
    stay as they came.
    """
    video, text = streams
    attn: Any = block.attn
    m = video.shape[1]
    shift, scale, gate = _modulation(block.norm, temb, 3)
    layers = _layers(attn, _PROJECTIONS)
    normed = room_for([*layers, block.proj_mlp], video, m + text.shape[1])
    for x, part in zip(streams, (normed[:, :m], normed[:, m:]), strict=True):
        modulated_norm(x, scale, shift, block.norm.norm.eps, part)
    projected = _projected([layers], [normed], attn.heads)

    def turn(x: Float[Tensor, "b n a e"], norm: Any) -> Float[Tensor, "b n a e"]:
        rotate_normed(x, norm.weight, norm.eps, *phases)
        return x

    def attended(queries: slice) -> Float[Tensor, "b m d"]:
        return _attend(
            attn,
            projected,
            lambda query: turn(query, attn.norm_q)[:, queries],
            lambda key: turn(key, attn.norm_k),
            mask,
        )

    if unseen is None or isinstance(attn.processor, JointProcessor):  # of which no device has the unseen tokens alone
        result = _beside(block, normed, attended(slice(None)))
        return gated_sum(video, result[:, :m], gate), gated_sum(text, result[:, m:], gate)
    first = unseen()
    result = _beside(block, normed[:, first:m], attended(slice(first, m)))
    return torch.cat([video[:, :first], gated_sum(video[:, first:], result, gate)], dim=1), text


_FORWARDS: dict[type[nn.Module], Callable[..., Streams]] = {
    HunyuanVideoTransformerBlock: _double,
    HunyuanVideoSingleTransformerBlock: _single,
}


def _is_plain(attn: nn.Module) -> bool:
    """True if this attention is computed as diffusers does it, on one device or on several that share its tokens."""
    norms = [attn.get_submodule(name) for name in ("norm_q", "norm_k")]
    processor: Any = getattr(attn, "processor", None)
    alone = type(processor) is HunyuanVideoAttnProcessor2_0 and processor._parallel_config is None
    known = alone or type(processor) is JointProcessor
    return known and all(type(norm) is RMSNorm and norm.weight is not None for norm in norms)


def _modulation(norm: nn.Module, temb: Float[Tensor, "b d"], count: int) -> tuple[Float[Tensor, "b d"], ...]:
    """The vectors that the block's norm makes of step and prompt."""
    return norm.get_submodule("linear")(norm.get_submodule("silu")(temb)).chunk(count, dim=1)


def _layers(attn: Attention, names: Sequence[str]) -> list[nn.Module]:
    return [attn.get_submodule(name) for name in names]


def _projected(
    layers: Sequence[Sequence[nn.Module]], inputs: Sequence[Tensor | Rounded], heads: int
) -> list[Float[Tensor, "b n a e"]]:
    """Queries, keys and values of all tokens, those of each input by layers of its own.

    One product makes the three where their weights lie together, and they lie side by side; three make them apart.
    """
    (b, _, d), counts = inputs[0].shape, [x.shape[1] for x in inputs]
    weights = [weight for each in layers if b == 1 and (weight := _together(each)) is not None]
    empty = partial(torch.empty, dtype=inputs[0].dtype, device=inputs[0].device)
    if len(weights) == len(layers):
        joined = empty(b, sum(counts), 3 * d)
        for each, weight, x, place in zip(layers, weights, inputs, joined.split(counts, dim=1), strict=True):
            assert isinstance(x, Tensor)
            torch.addmm(torch.cat([linear.get_parameter("bias") for linear in each]), x[0], weight.t(), out=place[0])
        parts = joined.chunk(3, dim=2)
    else:
        parts = empty(3, b, sum(counts), d).unbind()
        for linears, part in zip(zip(*layers, strict=True), parts, strict=True):
            for linear, x, place in zip(linears, inputs, part.split(counts, dim=1), strict=True):
                multiply_into(linear, x, place)
    return [part.unflatten(2, (heads, -1)) for part in parts]


def _lay_together(linears: Sequence[nn.Module | None]) -> None:
    """Puts the weights of plain layers of one size behind each other in memory."""
    plain = [linear for linear in linears if is_plain(linear)]
    if len(plain) == len(linears):
        weights = [linear.weight for linear in plain]
        if all(weight.shape == weights[0].shape and weight.dtype == weights[0].dtype for weight in weights):
            together = torch.cat([weight.data for weight in weights])
            for weight, part in zip(weights, together.chunk(len(weights)), strict=True):
                weight.data = part


def _together(linears: Sequence[nn.Module]) -> Tensor | None:
    """The weights of plain layers as one matrix, if they lie behind each other."""
    weights = [linear.weight for linear in linears if is_plain(linear)]
    if len(weights) < len(linears):
        return None
    first, step = weights[0], weights[0].nbytes
    for index, weight in enumerate(weights):
        here = weight.is_contiguous() and weight.data_ptr() == first.data_ptr() + index * step
        if not here or weight.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return None
    return first.as_strided((len(weights) * first.shape[0], first.shape[1]), first.stride())


def _attend(
    attn: Any,
    projected: Sequence[Tensor],
    turn_query: Callable[[Tensor], Tensor],
    turn_key: Callable[[Tensor], Tensor],
    mask: Tensor | None,
) -> Float[Tensor, "b m d"]:
    """Attention of queries, keys and values "b n a e" of which the first two are still to be normed and turned."""
    query, key, value = projected
    if isinstance(attn.processor, JointProcessor):
        attended = attn.processor.exchanged(lambda: value, lambda: turn_key(key), lambda: turn_query(query), mask)
    else:
        backend = attn.processor._attention_backend
        key, query = turn_key(key), turn_query(query)
        attended = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=backend)
    return attended.flatten(2, 3).to(value.dtype)


def _mlp(mlp: nn.Module, x: Float[Tensor, "b n d"] | Rounded) -> Float[Tensor, "b n d"]:
    """The feed-forward of diffusers, with GELU."""
    first, second = (mlp.get_submodule(name) for name in ("net.0.proj", "net.2"))
    return second(rounded_gelu(first(x), FP8) if computes_in_fp8(second) else linear_gelu(x, first))


def _beside(
    block: HunyuanVideoSingleTransformerBlock,
    normed: Float[Tensor, "b n d"] | Rounded,
    attended: Float[Tensor, "b n d"],
) -> Float[Tensor, "b n d"]:
    """The block's last layer, of attention and MLP side by side."""
    linear = block.proj_out
    if computes_in_fp8(linear):
        return linear(rounded_gelu(block.proj_mlp(normed), FP8, beside=attended))
    mlp = linear_gelu(normed, block.proj_mlp)
    if not is_plain(linear):
        return linear(torch.cat([attended, mlp], dim=2))
    d, weight = attended.shape[2], linear.weight.t()
    total = torch.addmm(linear.bias, mlp.flatten(0, 1), weight[d:])
    return total.addmm_(attended.flatten(0, 1), weight[:d]).unflatten(0, attended.shape[:2])
