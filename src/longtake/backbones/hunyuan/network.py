"""HunyuanVideo: where its seams are, the weights of its history, and its velocity.

Released FramePack weights stay in the class that diffusers made for them. It cuts a lone text to its real tokens and
then needs no attention mask, so every attention kernel can be used; the plain class always makes a mask, and its keys
lack those of the history and of the image tokens. The class wants three histories of its own, of kernels (1, 2, 2),
(2, 4, 4) and (4, 8, 8), and would put them before the noisy tokens. It is told that there are none: its embedding of
history gives three times nothing, and for the frames of nothing there are no phases, so that it leaves out what it
would put there. What is packed enters through the same seams as in any other network, by any schedule or by none.

The plain class is a base for training. Where its transformer has an `image_projection`, as the FramePack class has,
projected image tokens come before those of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import (
    FramepackClipVisionProjection,
    HunyuanVideoFramepackTransformer3DModel,
)
from jaxtyping import Float
from torch import Tensor, nn

from longtake.backbones.hunyuan.conditioning import HunyuanConditioning
from longtake.backbones.placement.modulation import has_tables
from longtake.backbones.seams import SeamHook, Seams, SeamSpec, install_seams
from longtake.errors import ModelError
from longtake.packing import Packed, Patchify, RopeAxes
from longtake.schedule import Kernel

__all__ = [
    "FRAMEPACK",
    "HUNYUAN",
    "IMAGE_WIDTH",
    "OWN_KERNELS",
    "TIMESTEPS",
    "Compat",
    "HunyuanTransformer",
    "add_image_projection",
    "as_told",
    "begin_history",
    "bring",
    "history_patchify",
    "install",
    "project_in_float32",
    "rope_axes",
    "velocity",
]

Compat = Literal["longtake", "official"]
HunyuanTransformer = HunyuanVideoTransformer3DModel | HunyuanVideoFramepackTransformer3DModel

TIMESTEPS = 1000.0  # what the network calls pure noise; guidance is told on the same scale
IMAGE_WIDTH = 1152  # of SigLIP's tokens
OWN_KERNELS = {Kernel(1, 2, 2): "proj", Kernel(2, 4, 4): "proj_2x", Kernel(4, 8, 8): "proj_4x"}  # of released weights


class _NoHistory(SeamHook):
    """Says to the FramePack class that it has no history of its own: three that are there, and nothing in them."""

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        return self.original(*args, **kwargs) if self.seams.entry is None else ((), (), ())


class _ImageTokens(SeamHook):
    """Puts image tokens before those of the text. The mask that the network was given has places for both."""

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        image = self._image
        if image is None:
            return args, kwargs
        text, timestep, mask = args
        return (text, timestep, mask[:, image.shape[1] :]), kwargs

    def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
        image = self._image
        return output if image is None else torch.cat([image.to(output.dtype), output], dim=1)

    @property
    def _image(self) -> Tensor | None:
        return None if self.seams.entry is None else self.seams.entry.image


FRAMEPACK = SeamSpec(
    patch="x_embedder", rope="rope", tokens="b n d", phases="n e", more={"clean_x_embedder": _NoHistory}
)
HUNYUAN = SeamSpec(
    patch="x_embedder",
    rope="rope",
    out="proj_out",
    tokens="b n d",
    phases="n e",
    more={"context_embedder": _ImageTokens},
)


def install(transformer: HunyuanTransformer) -> Seams:
    """The seams of a FramePack model or of a plain HunyuanVideo.

    Raises:
        ModelError: a transformer of the FramePack class was made without what makes it one.
    """
    if isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
        _check_whole(transformer)
        return install_seams(transformer, FRAMEPACK)
    return install_seams(transformer, HUNYUAN)


def _check_whole(transformer: HunyuanVideoFramepackTransformer3DModel) -> None:
    if transformer.clean_x_embedder is None or transformer.image_projection is None:
        raise ModelError(
            "a FramePack transformer without weights for history or image tokens: its config.json has to say "
            "has_clean_x_embedder and has_image_proj; a plain HunyuanVideo is a HunyuanVideoTransformer3DModel"
        )


def rope_axes(transformer: HunyuanTransformer) -> RopeAxes:
    """How its heads are divided.

    >>> rope_axes(HunyuanVideoTransformer3DModel(num_attention_heads=1, num_layers=0, num_single_layers=0))
    RopeAxes(t=16, h=56, w=56, patch=Kernel(t=1, h=2, w=2), theta=256.0)
    """
    config = transformer.config
    t, h, w = config["rope_axes_dim"]
    side = config["patch_size"]
    return RopeAxes(t, h, w, patch=Kernel(config["patch_size_t"], side, side), theta=config["rope_theta"])


def begin_history(transformer: HunyuanTransformer, kernels: Iterable[Kernel]) -> None:
    """Gives a network weights for history seen through those of these kernels that it has none for.

    They begin as its patch embedding, stretched, and are its child `history_patch_embed`.

    Raises:
        ModelError: a transformer of the FramePack class was made without what makes it one, or a kernel is not a
            multiple of the patch.
    """
    absent = set(kernels) - _own_history(transformer).keys()
    if absent:
        transformer.history_patch_embed = Patchify(transformer.x_embedder.proj, absent)


def history_patchify(transformer: HunyuanTransformer) -> Patchify:
    """The network's weights for history, shared: a FramePack model's own under their released names, and those begun.

    Adapters put other modules in the place of those that they adapt. What is given back are the modules of this moment,
    so ask again after adapters have come or gone.

    Raises:
        ModelError: there are none, or a transformer of the FramePack class was made without what makes it one.
    """
    own, begun = _own_history(transformer), getattr(transformer, "history_patch_embed", None)
    if not own:
        if begun is None:
            raise ModelError("a plain HunyuanVideo has no weights for history until they are begun")
        return begun
    patchify = Patchify.sharing(own)
    if begun is not None:
        patchify.proj.update(dict(begun.proj.items()))
    return patchify


def _own_history(transformer: HunyuanTransformer) -> dict[Kernel, nn.Module]:
    if not isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
        return {}
    _check_whole(transformer)
    return {kernel: getattr(transformer.clean_x_embedder, name) for kernel, name in OWN_KERNELS.items()}


def add_image_projection(transformer: HunyuanVideoTransformer3DModel, width: int = IMAGE_WIDTH) -> None:
    """Gives a plain HunyuanVideo the projection of image tokens, initialized, under the name FramePack has for it."""
    weight = transformer.x_embedder.proj.weight
    projection = FramepackClipVisionProjection(width, weight.shape[0])
    transformer.image_projection = projection.to(weight.device, weight.dtype)


def project_in_float32(transformer: HunyuanTransformer) -> None:
    """Lets the last layer compute in float32, as the official program does for quality."""
    transformer.proj_out.float()
    transformer.proj_out.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))


_ROUNDED: dict[Compat, Callable[[Tensor], Tensor]] = {
    "longtake": lambda told: told,
    "official": lambda told: told.bfloat16().float(),
}


def as_told(level: Float[Tensor, " b"], compat: Compat = "longtake") -> Float[Tensor, " b"]:
    """A sigma or a guidance as the network is told it: in thousandths, which the official program rounds to bfloat16.

    >>> as_told(torch.tensor([10.0, 0.9941, 0.9256]), "official")
    tensor([9984.,  996.,  924.])
    """
    return _ROUNDED[compat](TIMESTEPS * level.float())


def bring(transformer: HunyuanTransformer, told: HunyuanConditioning, device: torch.device) -> HunyuanConditioning:
    """What the network is told of a prompt, to where it reads it, in its dtype.

    What modulation tables stand for stays on the host: there they look it up without waiting for the device, which
    goes on with the step before.
    """
    dtype = transformer.x_embedder.proj.weight.dtype
    image = None if told.image is None else told.image.to(device, dtype)
    rest = replace(told, image=None).to(torch.device("cpu") if has_tables(transformer) else device, dtype)
    return replace(rest, image=image)


def velocity(
    transformer: HunyuanTransformer,
    seams: Seams,
    x: Float[Tensor, "b c t h w"],
    sigma: Float[Tensor, " b"],
    conditioning: HunyuanConditioning,
    packed: Packed,
    compat: Compat = "longtake",
) -> Float[Tensor, "b c t h w"]:
    """The network's velocity (noise - clean) at `x`, in `x`'s dtype.

    History tokens are told the sigma of the section's own. A lone sample needs no attention mask; in a batch, texts of
    several lengths are told apart by one.

    Raises:
        ModelError: there are image tokens, and a plain HunyuanVideo has no projection for them.
    """
    told = bring(transformer, conditioning.expand(len(x)), x.device)
    timestep, guidance = as_told(sigma.to(told.text.device, non_blocking=True), compat), None
    if transformer.config["guidance_embeds"]:
        guidance = as_told(torch.full_like(timestep, told.guidance), compat)
    arguments = {
        "hidden_states": x.to(told.text.dtype),
        "timestep": timestep,
        "encoder_hidden_states": told.text,
        "encoder_attention_mask": told.mask,
        "pooled_projections": told.pooled,
        "guidance": guidance,
    }
    image = None
    if isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
        arguments |= _framepack_arguments(transformer, told, x)
    elif told.image is not None:
        image = _projected(transformer, told.image)
        arguments["encoder_attention_mask"] = torch.cat([told.mask.new_ones(image.shape[:2]), told.mask], dim=1)
    with seams.use(packed, image=image):
        (v,) = transformer(**arguments, return_dict=False)
    return v.to(x.dtype)


def _framepack_arguments(
    transformer: HunyuanVideoFramepackTransformer3DModel, told: HunyuanConditioning, x: Float[Tensor, "b c t h w"]
) -> dict[str, Tensor]:
    """What the FramePack class wants beside what the plain one does: image tokens, and the frames of each history."""
    no_image = torch.zeros(len(x), 0, transformer.config["image_proj_dim"], dtype=told.text.dtype, device=x.device)
    nothing = torch.empty(0, device=x.device)
    return {
        "image_embeds": no_image if told.image is None else told.image,
        "indices_latents": torch.arange(x.shape[2], device=x.device),  # the seams know their true positions
        "indices_latents_clean": nothing,
        "indices_latents_history_2x": nothing,
        "indices_latents_history_4x": nothing,
    }


def _projected(transformer: HunyuanVideoTransformer3DModel, image: Float[Tensor, "b m k"]) -> Float[Tensor, "b m d"]:
    if not hasattr(transformer, "image_projection"):
        raise ModelError(
            "image tokens for a plain HunyuanVideo, which has no weights for them: leave them out, or train some"
        )
    return transformer.image_projection(image)
