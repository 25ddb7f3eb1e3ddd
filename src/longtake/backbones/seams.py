"""Where packed history enters a network that knows nothing of it.

Three places of a diffusers transformer are met from outside, none of its code is changed or copied:

    patch embedding    noisy tokens       ->  history tokens + noisy tokens
    rotary embedding   its own table      ->  the phases of all these tokens
    output projection  all tokens         ->  the noisy tokens alone

The first two are diffusers' own `ModelHook`s, installed first, so that hooks of context parallelism or offloading wrap
around them and see the packed sequence. The last one is a plain torch hook: it has to run after tokens that were spread
over devices are together again. Which modules these are, and in which layouts they speak, is a network's `SeamSpec`;
hooks that only one kind of network needs lie beside its spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from longtake.packing import Packed

__all__ = ["SeamHook", "SeamSpec", "Seams", "install_seams"]

_NAME = "longtake"
_FROM_TOKENS = {  # for what comes before the blocks, which flatten all but batch and channels
    "b d t h w": "b n d -> b d n 1 1",
    "b n d": "b n d -> b n d",
}
_TO_TOKENS = {"b d t h w": "b d t h w -> b (t h w) d", "b n d": "b n d -> b n d"}


@dataclass(frozen=True, slots=True)
class SeamSpec:
    """The modules of a network where its seams are, by name, and the layouts that they speak."""

    patch: str
    rope: str
    out: str | None = None  # None: the network itself keeps the noisy tokens alone
    tokens: Literal["b d t h w", "b n d"] = "b d t h w"  # as the patch embedding gives them
    phases: Literal["1 n 1 e", "n e"] = "1 n 1 e"  # as the rotary embedding gives them
    more: Mapping[str, Callable[[Seams], SeamHook]] = field(default_factory=dict)  # hooks on other modules


@dataclass(frozen=True, slots=True)
class _Entry:
    """A packed history in the layout that the network wants, and image tokens for those that take some."""

    tokens: Float[Tensor, "b n d"]
    cos: Tensor  # of history and target
    sin: Tensor
    causal: bool
    image: Float[Tensor, "b m d"] | None

    @property
    def length(self) -> int:
        """Tokens of the history."""
        return self.tokens.shape[1]


class SeamHook(ModelHook):
    """A hook that knows what is packed."""

    def __init__(self, seams: Seams) -> None:
        super().__init__()
        self.seams = seams

    @property
    def original(self) -> Callable[..., Any]:
        """What a hook with a forward of its own stands in for."""
        forward = self.fn_ref.original_forward
        assert forward is not None  # the registry sets it for such hooks
        return forward


class _PatchHook(SeamHook):
    """Puts history tokens before the noisy ones."""

    def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
        entry = self.seams.entry
        if entry is None or entry.length == 0:
            return output
        layout = self.seams.spec.tokens
        noisy = rearrange(output, _TO_TOKENS[layout])
        tokens = entry.tokens.to(noisy.dtype).expand(noisy.shape[0], -1, -1)
        return rearrange(torch.cat([tokens, noisy], dim=1), _FROM_TOKENS[layout])


class _RopeHook(SeamHook):
    """Gives the phases of the packed sequence instead of the network's own.

    The first argument is what the network wants phases for: latents, or numbers of frames. A network that has history
    of its own asks again for the frames of that; where there are none, there are no phases.
    """

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor] | None:
        entry = self.seams.entry
        if entry is None:
            return self.original(*args, **kwargs)
        asked = next(iter((*args, *kwargs.values())))
        return (entry.cos, entry.sin) if asked.numel() else None


class Seams:
    """The hooks of one network. Idle, they change nothing."""

    def __init__(self, transformer: nn.Module, spec: SeamSpec) -> None:
        self.spec = spec
        self.entry: _Entry | None = None
        self._registries: list[HookRegistry] = []
        for name, hook in {spec.patch: _PatchHook, spec.rope: _RopeHook, **spec.more}.items():
            registry = HookRegistry.check_if_exists_or_initialize(transformer.get_submodule(name))
            registry.register_hook(hook(self), _NAME)
            self._registries.append(registry)
        self._out: RemovableHandle | None = None
        if spec.out is not None:
            self._out = transformer.get_submodule(spec.out).register_forward_hook(self._keep_noisy)

    def _keep_noisy(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.entry is None or self.entry.length == 0:
            return output
        return output[:, self.entry.length :]

    @property
    def blind(self) -> int:
        """How many tokens, the first ones, do not see those after them: the history's, if attention is causal."""
        return self.entry.length if self.entry is not None and self.entry.causal else 0

    @contextmanager
    def use(self, packed: Packed, causal: bool = False, image: Float[Tensor, "b m d"] | None = None) -> Iterator[None]:
        """Calls of the network inside this context see `packed`.

        With `causal` history tokens do not see the section's own, in a network whose self-attention asks for `blind`.
        Tokens of an `image` are for networks whose own hooks put them before the text.
        """
        before = self.entry
        layout = f"n e -> {self.spec.phases}"
        self.entry = _Entry(
            tokens=packed.tokens,
            cos=rearrange(torch.cat([packed.cos, packed.target_cos]), layout),
            sin=rearrange(torch.cat([packed.sin, packed.target_sin]), layout),
            causal=causal,
            image=image,
        )
        try:
            yield
        finally:
            self.entry = before

    def remove(self) -> None:
        """Gives the network back as it came."""
        for registry in self._registries:
            registry.remove_hook(_NAME, recurse=False)
        if self._out is not None:
            self._out.remove()


def install_seams(transformer: nn.Module, spec: SeamSpec) -> Seams:
    """Installs the hooks, once for a network, before adapters of any other kind wrap its modules."""
    return Seams(transformer, spec)
