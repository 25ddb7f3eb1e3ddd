"""TeaCache (arXiv 2411.19108): a step whose input has hardly changed reuses what the blocks added at an earlier one.

    first block -> how far is its attention's input from the step before?  d = mean|now - before| / mean|before|
                   accumulated += polynomial(d)
        accumulated >= threshold, first or last step    all blocks run; residual = their output - their input
        otherwise                                       output = input + residual

The polynomial was fitted by the authors to how far the *output* moves for an input that moves by d, so it belongs to a
model. The first block runs at every step: its modulated input is heard inside of it, wherever its weights are kept
between the steps (streamed, tabulated, adapted). That costs one block of sixty at a step that is skipped.

Each branch of guidance has a state of its own. In the official program both share one, which counts two steps for one
and adds the residual of one branch to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from diffusers.hooks.hooks import BaseState, HookRegistry, ModelHook, StateManager
from torch import Tensor, nn

__all__ = ["HUNYUAN_POLYNOMIAL", "blocks_of", "install_teacache"]

# The official FramePack program's, from TeaCache's own for HunyuanVideo; highest power first.
HUNYUAN_POLYNOMIAL = (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896)

_NAME = "longtake_teacache"
_BLOCKS = ("transformer_blocks", "single_transformer_blocks", "blocks")
_ATTENTIONS = ("attn", "attn1")


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    """The blocks that a network's tokens pass one after the other."""
    return [block for name in _BLOCKS for block in getattr(transformer, name, ())]


class _Branch(BaseState):
    """What is known of one branch of guidance in this section."""

    def __init__(self) -> None:
        self.step = 0
        self.accumulated = 0.0
        self.computing = True
        self.heard: Tensor | None = None  # the first attention's input at this step, then at the step before
        self.before: Tensor | None = None
        self.entered: Tensor | None = None  # what the blocks were given at this step
        self.residual: Tensor | None = None  # what they added when they last ran

    def reset(self) -> None:
        """Nothing: a state that is reset is thrown away."""


class _Listener(ModelHook):
    """Hears what the first block's self-attention is given."""

    def __init__(self, states: StateManager) -> None:
        super().__init__()
        self.states = states

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.states.get_state().heard = _argument("hidden_states", 0, args, kwargs)
        return args, kwargs


class _First(ModelHook):
    """Lets the first block run and decides about the others."""

    _is_stateful = True

    def __init__(self, states: StateManager, threshold: float, steps: int, polynomial: Sequence[float]) -> None:
        super().__init__()
        self.states = states
        self.threshold = threshold
        self.steps = steps
        self.polynomial = polynomial

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        state: _Branch = self.states.get_state()
        state.entered = _argument("hidden_states", 0, args, kwargs)
        output = _below(self, *args, **kwargs)
        _decide(state, self.threshold, self.steps, self.polynomial)  # pyright: ignore[reportCallIssue]  (torch types it as a method)
        if state.computing:
            return output
        assert state.residual is not None  # the first step runs
        reused = state.entered + state.residual
        if not isinstance(output, tuple):
            return reused
        # Nothing behind the blocks looks at the text.
        return reused, _argument("encoder_hidden_states", 1, args, kwargs)

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.states.reset()
        return module


@torch.compiler.disable
def _decide(state: _Branch, threshold: float, steps: int, polynomial: Sequence[float]) -> None:
    """Whether the blocks run at this step, and what is kept for the next."""
    now, before = state.heard, state.before
    assert now is not None
    if before is None or state.step >= steps - 1:
        state.computing = True
    else:
        change = (now - before).abs().mean(dtype=torch.float32) / before.abs().mean(dtype=torch.float32)
        state.accumulated += reduce(lambda value, factor: value * change.item() + factor, polynomial, 0.0)
        state.computing = state.accumulated >= threshold
    if state.computing:
        state.accumulated = 0.0
    state.before, state.heard = now, None
    state.step += 1


class _Other(ModelHook):
    """Lets a later block run, or hands on what it is given."""

    def __init__(self, states: StateManager, last: bool) -> None:
        super().__init__()
        self.states = states
        self.last = last
        self.pairs = False  # it gives tokens and text; known from the first step, which always runs

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        state: _Branch = self.states.get_state()
        if not state.computing:
            tokens = _argument("hidden_states", 0, args, kwargs)
            return (tokens, _argument("encoder_hidden_states", 1, args, kwargs)) if self.pairs else tokens
        output = _below(self, *args, **kwargs)
        self.pairs = isinstance(output, tuple)
        if self.last:
            state.residual = (output[0] if self.pairs else output) - state.entered
            state.entered = None
        return output


def _below(hook: ModelHook, *args: Any, **kwargs: Any) -> Any:
    """What the module gives, and the hooks that were there before."""
    forward = hook.fn_ref.original_forward
    assert forward is not None  # the registry sets it for hooks with a forward of their own
    return forward(*args, **kwargs)


def _argument(name: str, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[place] if place < len(args) else kwargs[name]


def install_teacache(
    transformer: nn.Module, threshold: float, steps: int, polynomial: Sequence[float]
) -> Callable[[], None]:
    """Hooks that skip steps, `steps` of which make a section; gives what removes them.

    Args:
        transformer: a network of at least two blocks whose first output are its tokens.
        threshold: how much change may gather before the blocks run again; at 0 they always run.
        steps: evaluations of the network in each branch and section; the last one always runs.
        polynomial: from the change of the input to that of the output, highest power first.
    """
    first, *others = blocks_of(transformer)
    states = StateManager(_Branch)  # pyright: ignore[reportArgumentType]  (declared as an instance)
    (attention,) = (getattr(first, name) for name in _ATTENTIONS if hasattr(first, name))
    hooks = [(attention, _Listener(states)), (first, _First(states, threshold, steps, polynomial))]
    hooks += [(block, _Other(states, last=block is others[-1])) for block in others]
    registries = [HookRegistry.check_if_exists_or_initialize(module) for module, _ in hooks]
    for registry, (_, hook) in zip(registries, hooks, strict=True):
        registry.register_hook(hook, _NAME)
    root = HookRegistry.check_if_exists_or_initialize(transformer)
    root.invalidate_child_registries_cache()

    def remove() -> None:
        for registry in registries:
            registry.remove_hook(_NAME, recurse=False)
        root.invalidate_child_registries_cache()

    return remove
