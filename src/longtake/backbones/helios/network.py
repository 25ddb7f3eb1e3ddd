"""Helios: where its seams are, the weights of its history, and its velocity.

Helios is Wan with packed history of its own. It embeds short, middle and long history by three convolutions, the
kernels (1, 2, 2), (2, 4, 4) and (4, 8, 8), and counts the tokens that they give: that many are told time 0, are
amplified where it was trained so, hear no text, and leave before the output. So what is packed has to enter where its
own history does. It is given a short history of nothing and no other; the embedding of that gives the packed tokens,
and its phases are theirs. All the rest is the network's own, whatever the schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.seams import SeamHook, Seams, SeamSpec, install_seams
from longtake.backbones.settings import BackboneSettings
from longtake.errors import ModelError
from longtake.packing import Packed, Patchify, RopeAxes
from longtake.schedule import Kernel

__all__ = [
    "HELIOS",
    "OWN_KERNELS",
    "TIMESTEPS",
    "begin_history",
    "check_settings",
    "history_patchify",
    "install",
    "rope_axes",
    "velocity",
]

TIMESTEPS = 1000.0  # what Helios calls pure noise (its scheduler's `num_train_timesteps`)
OWN_KERNELS = {Kernel(1, 2, 2): "patch_short", Kernel(2, 4, 4): "patch_mid", Kernel(4, 8, 8): "patch_long"}


class _History(SeamHook):
    """Gives the packed tokens for the short history that the network believes to embed."""

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        entry = self.seams.entry
        if entry is None:
            return self.original(*args, **kwargs)
        asked = next(iter((*args, *kwargs.values())))
        return rearrange(entry.tokens.to(asked.dtype).expand(len(asked), -1, -1), "b n d -> b d n 1 1")


class _Phases(SeamHook):
    """Gives the phases of the section's own tokens, and those of the history where no frames are named.

    The network asks twice, and joins what it gets.
    """

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        entry = self.seams.entry
        if entry is None:
            return self.original(*args, **kwargs)
        asked = next(iter((*args, *kwargs.values())))
        part = slice(entry.length, None) if asked.numel() else slice(entry.length)
        return rearrange(torch.cat([entry.cos[part], entry.sin[part]], dim=1), "n e -> 1 e n 1 1")


HELIOS = SeamSpec(
    patch="patch_short", rope="rope", phases="n e", more={"patch_short": _History, "rope": _Phases}
)  # no `out`: the network itself keeps the section's own tokens


def install(transformer: HeliosTransformer3DModel) -> Seams:
    """The seams of a Helios.

    Raises:
        ModelError: it was made without weights for history.
    """
    _check_whole(transformer)
    return install_seams(transformer, HELIOS)


def _check_whole(transformer: HeliosTransformer3DModel) -> None:
    if not transformer.config["has_multi_term_memory_patch"]:
        raise ModelError(
            "a Helios transformer without weights for history: its config.json has to say has_multi_term_memory_patch"
        )


def check_settings(transformer: HeliosTransformer3DModel, settings: BackboneSettings) -> None:
    """Checks that a model's settings ask for nothing that the network's config does not have.

    Raises:
        ModelError: history is to be told another time than the network tells it, or attention is to be causal.
    """
    told = "clean" if transformer.config["zero_history_timestep"] else "same"
    if settings.history_time != told:
        zero = transformer.config["zero_history_timestep"]
        raise ModelError(
            f"history_time is {settings.history_time!r}, but the transformer's config.json says "
            f"zero_history_timestep {str(zero).lower()}: expected {told!r}"
        )
    if settings.attention != "full":
        raise ModelError("Helios has full attention between history and section: expected attention 'full'")


def rope_axes(transformer: HeliosTransformer3DModel) -> RopeAxes:
    """How its heads are divided.

    >>> rope_axes(HeliosTransformer3DModel(num_attention_heads=1, ffn_dim=8, num_layers=0))
    RopeAxes(t=44, h=42, w=42, patch=Kernel(t=1, h=2, w=2), theta=10000.0)
    """
    config = transformer.config
    t, h, w = config["rope_dim"]
    return RopeAxes(t, h, w, patch=Kernel(*config["patch_size"]), theta=config["rope_theta"])


def begin_history(transformer: HeliosTransformer3DModel, kernels: Iterable[Kernel]) -> None:
    """Gives a network weights for history seen through those of these kernels that it has none for.

    They begin as its patch embedding, stretched, and are its child `history_patch_embed`.

    Raises:
        ModelError: it was made without weights for history, or a kernel is not a multiple of the patch.
    """
    absent = set(kernels) - _own_history(transformer).keys()
    if absent:
        transformer.history_patch_embed = Patchify(transformer.patch_embedding, absent)


def history_patchify(transformer: HeliosTransformer3DModel) -> Patchify:
    """The network's weights for history, shared: its own under their released names, and those begun.

    Adapters put other modules in the place of those that they adapt. What is given back are the modules of this moment,
    so ask again after adapters have come or gone.

    Raises:
        ModelError: it was made without weights for history.
    """
    patchify = Patchify.sharing(_own_history(transformer))
    begun = getattr(transformer, "history_patch_embed", None)
    if begun is not None:
        patchify.proj.update(dict(begun.proj.items()))
    return patchify


def _own_history(transformer: HeliosTransformer3DModel) -> dict[Kernel, nn.Module]:
    _check_whole(transformer)
    return {kernel: getattr(transformer, name) for kernel, name in OWN_KERNELS.items()}


def velocity(
    transformer: HeliosTransformer3DModel,
    seams: Seams,
    x: Float[Tensor, "b c t h w"],
    sigma: Float[Tensor, " b"],
    text: Float[Tensor, "b s d"],
    packed: Packed,
) -> Float[Tensor, "b c t h w"]:
    """The network's velocity (noise - clean) at `x`, in `x`'s dtype.

    Its config says what history tokens are told: time 0 (`zero_history_timestep`, all released ones), or the section's.
    """
    dtype = transformer.patch_embedding.weight.dtype
    history = {}
    if packed.tokens.shape[1]:
        nothing = torch.empty(len(x), 0, dtype=dtype, device=x.device)
        history = {"latents_history_short": nothing, "indices_latents_history_short": nothing}
    with seams.use(packed):
        (v,) = transformer(
            x.to(dtype),
            TIMESTEPS * sigma.float(),
            text.to(dtype),
            indices_hidden_states=torch.arange(x.shape[2], device=x.device)[None],  # the seams know true positions
            **history,
            return_dict=False,
        )
    return v.to(x.dtype)
