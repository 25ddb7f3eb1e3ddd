"""Step caches: steps that reuse what an earlier one computed. They change the video; none is on by default.

>>> for name, kind in CACHES.items():
...     print(f"{name:12} {kind.quality:6} {kind.threshold}")
teacache     draft  0.15
first_block  draft  0.06
magcache     draft  0.1
taylorseer   rough  3
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from diffusers.hooks import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformerBlock

from longtake.backbones.parallel.sharing import is_shared
from longtake.backbones.teacache import HUNYUAN_POLYNOMIAL, blocks_of, install_teacache
from longtake.errors import InputError, ModelError

__all__ = ["CACHES", "CacheKind", "StepCache", "install_cache"]

# How much longer the blocks' residual is than at the step before. Measured by MagCache's authors (arXiv 2506.09045) on
# FramePack-F1 with 25 steps of the official sampler; other numbers of steps take the nearest.
_F1_RATIOS = [1.0, 1.25781, 1.08594, 1.02344, 1.00781, 1.02344, 1.00781, 1.02344, 1.05469, 0.99609, 1.03906, 1.00781]
_F1_RATIOS += [1.01562, 1.00781, 1.02344, 1.01562, 0.98047, 1.05469, 0.98047, 0.96875, 1.03125, 0.97266, 0.9375]
_F1_RATIOS += [0.96484, 0.78516]


@dataclass(frozen=True, slots=True)
class CacheKind:
    """A way to skip work, and what is known of it."""

    install: Callable[[Any, float, int], Callable[[], None]]  # network, threshold, steps -> what removes it
    quality: Literal["draft", "rough"]  # draft: the same video, details differ; rough: perhaps another video
    threshold: float  # what its authors, or the official program, use
    says: str


class StepCache:
    """A cache in a network until `remove`: one state for each branch of guidance, none across sections."""

    def __init__(self, transformer: CacheMixin, remove: Callable[[], None]) -> None:
        self._transformer = transformer
        self._remove = remove

    def section(self) -> None:
        """Begins a section: everything that was kept is forgotten."""
        self._transformer._reset_stateful_cache()

    @contextmanager
    def branch(self, name: str) -> Iterator[None]:
        """Calls of the network inside this context belong to the branch of that name ("positive", "negative", ...)."""
        with self._transformer.cache_context(name):
            yield

    def remove(self) -> None:
        """Gives the network back as it came."""
        self._remove()


def install_cache(transformer: CacheMixin, name: str, threshold: float, steps: int) -> StepCache:
    """The cache of that name in the network; every later call of it has to stand in a `branch`.

    Args:
        transformer: the network, with adapters and seams in place.
        name: one of `CACHES`.
        threshold: how much error is allowed, in the cache's own measure; `CACHES[name].threshold` is a good one.
        steps: evaluations of the network in each branch and section.

    Raises:
        InputError: there is no such cache.
        ModelError: it does not work with this network, or not with several devices.
    """
    if name not in CACHES:
        raise InputError(f"unknown step cache {name!r}; there are {', '.join(CACHES)}")
    if not isinstance(transformer, CacheMixin):
        raise ModelError(f"{type(transformer).__name__} takes no step cache; leave it out")
    if is_shared(transformer):
        raise ModelError("a step cache decides by all tokens, and each device has a part of them: leave it out")
    return StepCache(transformer, CACHES[name].install(transformer, threshold, steps))


def _teacache(transformer: Any, threshold: float, steps: int) -> Callable[[], None]:
    _check_hunyuan(transformer, "teacache")
    return install_teacache(transformer, threshold, steps, HUNYUAN_POLYNOMIAL)


def _first_block(transformer: Any, threshold: float, steps: int) -> Callable[[], None]:
    return _enabled(transformer, FirstBlockCacheConfig(threshold=threshold))


def _magcache(transformer: Any, threshold: float, steps: int) -> Callable[[], None]:
    _check_hunyuan(transformer, "magcache")
    config = MagCacheConfig(threshold=threshold, max_skip_steps=2, num_inference_steps=steps, mag_ratios=_F1_RATIOS)
    return _enabled(transformer, config)


def _taylorseer(transformer: Any, threshold: float, steps: int) -> Callable[[], None]:
    # Lite: what is extrapolated is the output projection alone, which every network has under the same name.
    config = TaylorSeerCacheConfig(
        cache_interval=max(1, round(threshold)),
        disable_cache_before_step=3,
        disable_cache_after_step=steps - 1,
        taylor_factors_dtype=transformer.dtype,
        use_lite_mode=True,
    )
    return _enabled(transformer, config)


def _enabled(transformer: Any, config: Any) -> Callable[[], None]:
    try:
        transformer.enable_cache(config)
    except ValueError as error:
        raise ModelError(f"{type(transformer).__name__}: {type(config).__name__} does not know it ({error})") from error
    return transformer.disable_cache


def _check_hunyuan(transformer: Any, name: str) -> None:
    """Both measure what a model does, and were measured on this one."""
    if not isinstance(blocks_of(transformer)[0], HunyuanVideoTransformerBlock):
        fit = [other for other in CACHES if other not in ("teacache", "magcache")]
        raise ModelError(
            f"{name} was fitted to HunyuanVideo and FramePack, not to {type(transformer).__name__}; "
            f"use one of {', '.join(fit)}"
        )


CACHES = {
    "teacache": CacheKind(
        _teacache, "draft", 0.15, "Skips steps whose input hardly moved, as the official FramePack program does (2.1x)."
    ),
    "first_block": CacheKind(
        _first_block, "draft", 0.06, "Skips steps at which the first block adds what it added before; for any model."
    ),
    "magcache": CacheKind(
        _magcache, "draft", 0.1, "Skips steps where the model was measured, once, to add much the same (FramePack-F1)."
    ),
    "taylorseer": CacheKind(
        _taylorseer, "rough", 3, "Computes every so many steps (the threshold) and extrapolates between; for any model."
    ),
}
