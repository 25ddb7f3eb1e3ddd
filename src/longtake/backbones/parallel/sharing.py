"""One network on several devices: who has which tokens, and where they are divided and together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from longtake.backbones.parallel.exchange import Exchange
from longtake.backbones.parallel.processors import JointProcessor, SelfProcessor
from longtake.backbones.placement.layout import repeated_blocks
from longtake.errors import ModelError

__all__ = ["COMPILE_OPTIONS", "Sharing", "is_shared", "share_sequence"]

# The compiler's order of least memory computes queries and keys first, and then nothing while the values travel.
COMPILE_OPTIONS = {"reorder_for_peak_memory": False}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What of the arguments of a block, (tokens, text, ...), belongs to single tokens."""

    attentions: Callable[[Any], list[Any]]  # the modules in which tokens see each other
    processor: type[JointProcessor] | type[SelfProcessor]
    joint: bool  # the text is among the tokens, and comes back with them
    per_token: Mapping[int, int]  # arguments that the network itself holds for all tokens, and in which dimension

    def enter(self, exchange: Exchange, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The first block's arguments, with this rank's tokens in the place of all; begins the exchange."""
        tokens, text, *rest = arguments
        exchange.begin(tokens.shape[1], text.shape[1] if self.joint else 0)
        return _own(exchange.part(tokens, 1)), _own(exchange.part_of_text(text)) if self.joint else text, *rest

    def narrow(self, exchange: Exchange, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """A block's arguments, with this rank's part of what there is for all tokens."""
        narrowed = list(arguments)
        for place, dim in self.per_token.items():
            narrowed[place] = _narrow(exchange, arguments[place], dim)
        return tuple(narrowed)

    def leave(self, exchange: Exchange, output: Any) -> Any:
        """The last block's output, with all tokens. Nothing behind the blocks looks at the text."""
        return (exchange.whole(output[0]), *output[1:]) if self.joint else exchange.whole(output)


def _own(part: Tensor) -> Tensor:
    """A copy, so that all blocks are given tensors of the same strides and one compiled block serves them all."""
    return part.clone(memory_format=torch.contiguous_format)


def _narrow(exchange: Exchange, held: Any, dim: int) -> Any:
    if isinstance(held, tuple):
        return tuple(_narrow(exchange, each, dim) for each in held)
    return held if held.ndim == 3 else exchange.part(held, dim)  # "b 6 d" modulates all tokens alike


def _joint_attentions(transformer: Any) -> list[Any]:
    if transformer.config["image_condition_type"] == "token_replace":
        raise ModelError("a network that replaces tokens modulates the first of them alone: they cannot be divided")
    return [block.attn for block in repeated_blocks(transformer)]


def _self_attentions(transformer: Any) -> list[Any]:
    return [m for m in transformer.modules() if isinstance(m, WanAttention) and not m.is_cross_attention]


# block(tokens, text, temb, mask, phases "n e"), block(tokens, text, modulation "b 6 d" or "b n 6 d", phases "1 n 1 e")
_HUNYUAN = _Kind(_joint_attentions, JointProcessor, joint=True, per_token={4: 0})
_WAN = _Kind(_self_attentions, SelfProcessor, joint=False, per_token={2: 1, 3: 1})
_KINDS: dict[type[nn.Module], _Kind] = {
    HunyuanVideoTransformer3DModel: _HUNYUAN,
    HunyuanVideoFramepackTransformer3DModel: _HUNYUAN,
    WanTransformer3DModel: _WAN,
}


class Sharing:
    """The division of one network's tokens over a group, until `remove`."""

    def __init__(self, transformer: nn.Module, kind: _Kind, group: ProcessGroup) -> None:
        self._exchange, self._kind = Exchange(group), kind
        self._attentions = kind.attentions(transformer)
        self._replaced = [attention.processor for attention in self._attentions]
        ours = [kind.processor.instead_of(processor, self._exchange) for processor in self._replaced]
        for attention, processor in zip(self._attentions, ours, strict=True):
            attention.set_processor(processor)
        self._blocks = repeated_blocks(transformer)
        self._calls = [block._compiled_call_impl for block in self._blocks]
        for block in self._blocks:
            block._compiled_call_impl = self._around(block)
            block.compile = _refuse_to_compile

    def remove(self) -> None:
        """Gives the network back, as one that has all tokens; what else was put around its blocks is removed before."""
        for attention, replaced in zip(self._attentions, self._replaced, strict=True):
            replaced._attention_backend = attention.processor._attention_backend
            attention.set_processor(replaced)
        for block, call in zip(self._blocks, self._calls, strict=True):
            del block._compiled_call_impl
            if call is not None:
                block._compiled_call_impl = call
            block.__dict__.pop("compile", None)

    def _around(self, block: nn.Module) -> Callable[..., Any]:
        """The block's call, its hooks and what is compiled of it, with this rank's tokens.

        Not a hook: those are compiled with the block, and the first block would be another one than the others.
        """
        inner = block._compiled_call_impl or block._call_impl
        first, last = block is self._blocks[0], block is self._blocks[-1]
        exchange, kind = self._exchange, self._kind

        def around(*arguments: Any) -> Any:
            if torch.is_grad_enabled():
                raise ModelError("tokens on several devices have no gradients: call the network under torch.no_grad()")
            if first:
                arguments = kind.enter(exchange, arguments)
            output = inner(*kind.narrow(exchange, arguments))
            return kind.leave(exchange, output) if last else output

        return around


def share_sequence(transformer: nn.Module, group: ProcessGroup) -> Sharing:
    """Lets the ranks of a group compute one video together, each a part of the tokens.

    Every rank calls this on its own copy of the network, and then the network with the same arguments; each gets the
    whole result. Seams, adapters, tables and the kernel of attention are as they are on one device, set before or
    after. Blocks are compiled before, one by one with `block.compile(options=COMPILE_OPTIONS)`, and streamed before or
    after.

    Raises:
        ModelError: the heads cannot be divided among so many ranks, the network is not HunyuanVideo's or Wan's,
            replaces tokens, has processors or hooks of its own, or shares its tokens already.
    """
    kind = _KINDS.get(type(transformer))
    if kind is None:
        known = ", ".join(known.__name__ for known in _KINDS)
        raise ModelError(f"{type(transformer).__name__}: the tokens of {known} can be shared by devices, no others")
    config: Any = transformer.config
    heads, ranks = config["num_attention_heads"], group.size()
    if heads % ranks:
        would_do = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
        raise ModelError(f"{heads} heads cannot be divided among {ranks} devices: {would_do} would do")
    if is_shared(transformer):
        raise ModelError("the tokens of this network are shared already: remove() that first")
    if any(_is_hooked(module) for block in repeated_blocks(transformer) for module in block.modules()):
        raise ModelError(
            "hooks on the blocks, such as a step cache's, would decide by the tokens of one device, each differently: "
            "remove them first"
        )
    return Sharing(transformer, kind, group)


def is_shared(transformer: Any) -> bool:
    """True if each device has a part of its tokens."""
    return any(module.__dict__.get("compile") is _refuse_to_compile for module in transformer.modules())


def _is_hooked(module: nn.Module) -> bool:
    registry = getattr(module, "_diffusers_hook", None)
    return registry is not None and bool(registry.hooks)


def _refuse_to_compile(*args: Any, **kwargs: Any) -> NoReturn:
    raise ModelError(
        "the tokens of this network are shared by devices: remove() that, compile its blocks, share them again"
    )
