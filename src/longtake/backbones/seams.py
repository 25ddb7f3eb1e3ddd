"""Where packed history enters a network that knows nothing of it.

Three places of a diffusers transformer are met from outside, none of its code is changed or copied:

    patch embedding    noisy tokens       ->  history tokens + noisy tokens
    rotary embedding   its own table      ->  the phases of all these tokens
    output projection  all tokens         ->  the noisy tokens alone

The first two are diffusers' own `ModelHook`s, installed first, so that hooks of context parallelism or offloading wrap
around them and see the packed sequence. The last one is a plain torch hook: it has to run after tokens that were spread
over devices are together again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from longtake.packing import Packed

__all__ = ["SeamSpec", "Seams", "install_seams"]

_NAME = "longtake"


@dataclass(frozen=True, slots=True)
class SeamSpec:
    """The names of the three modules in a network."""

    patch: str
    rope: str
    out: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A packed history in the layout that the network wants."""

    tokens: Tensor  # b d n
    cos: Tensor  # 1 l 1 e, history and target
    sin: Tensor
    length: int  # of the history
    causal: bool


class _PatchHook(ModelHook):
    """Puts history tokens before the noisy ones."""

    def __init__(self, seams: Seams) -> None:
        super().__init__()
        self.seams = seams

    def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
        entry = self.seams.entry
        if entry is None or entry.length == 0:
            return output
        noisy = output.flatten(2)
        tokens = entry.tokens.to(noisy.dtype).expand(noisy.shape[0], -1, -1)
        # The root flattens all but batch and channels, so any shape of the token axis will do.
        return torch.cat([tokens, noisy], dim=2)[..., None, None]


class _RopeHook(ModelHook):
    """Gives the phases of the packed sequence instead of the network's own."""

    def __init__(self, seams: Seams) -> None:
        super().__init__()
        self.seams = seams

    def new_forward(self, module: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        entry = self.seams.entry
        if entry is None:
            original = self.fn_ref.original_forward
            assert original is not None  # the registry sets it for hooks with a forward of their own
            return original(hidden_states)
        return entry.cos, entry.sin


class Seams:
    """The three hooks of one network. Idle, they change nothing."""

    def __init__(self, transformer: nn.Module, spec: SeamSpec) -> None:
        self.entry: _Entry | None = None
        self._patch = HookRegistry.check_if_exists_or_initialize(transformer.get_submodule(spec.patch))
        self._rope = HookRegistry.check_if_exists_or_initialize(transformer.get_submodule(spec.rope))
        self._patch.register_hook(_PatchHook(self), _NAME)
        self._rope.register_hook(_RopeHook(self), _NAME)
        self._out: RemovableHandle = transformer.get_submodule(spec.out).register_forward_hook(self._keep_noisy)

    def _keep_noisy(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.entry is None or self.entry.length == 0:
            return output
        return output[:, self.entry.length :]

    @property
    def blind(self) -> int:
        """How many tokens, the first ones, do not see those after them: the history's, if attention is causal."""
        return self.entry.length if self.entry is not None and self.entry.causal else 0

    @contextmanager
    def use(self, packed: Packed, causal: bool = False) -> Iterator[None]:
        """Calls of the network inside this context see `packed`.

        With `causal` history tokens do not see the section's own, in a network whose self-attention asks for `blind`.
        """
        before = self.entry
        self.entry = _Entry(
            tokens=packed.tokens.transpose(1, 2),
            cos=torch.cat([packed.cos, packed.target_cos])[None, :, None],
            sin=torch.cat([packed.sin, packed.target_sin])[None, :, None],
            length=packed.tokens.shape[1],
            causal=causal,
        )
        try:
            yield
        finally:
            self.entry = before

    def remove(self) -> None:
        """Gives the network back as it came."""
        self._patch.remove_hook(_NAME, recurse=False)
        self._rope.remove_hook(_NAME, recurse=False)
        self._out.remove()


def install_seams(transformer: nn.Module, spec: SeamSpec) -> Seams:
    """Installs the hooks, once for a network, before adapters of any other kind wrap its modules."""
    return Seams(transformer, spec)
