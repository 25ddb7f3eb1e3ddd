"""A backbone becomes a model folder that diffusers, too, can read."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import __version__ as diffusers_version
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor

from longtake.backbones.placement.storage import StoredLinear
from longtake.backbones.prompts import PromptEncoder
from longtake.backbones.settings import BackboneSettings
from longtake.errors import ModelError, OutputError

__all__ = ["save_codec", "save_model"]

_INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": diffusers_version,
    "boundary_ratio": None,
    "expand_timesteps": False,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def save_model(
    folder: Path,
    transformer: WanTransformer3DModel,
    vae: AutoencoderKLWan,
    prompts: PromptEncoder,
    settings: BackboneSettings,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Writes a whole model folder, its weights in `dtype`. The networks stay as they are.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
        ModelError: the transformer's matrices are stored in fewer bits.
    """
    if any(isinstance(module, StoredLinear) for module in transformer.modules()):
        raise ModelError(f"{folder}: matrices that are stored in fewer bits are not saved: load the model in full")
    text_state = prompts.encoder.state_dict()
    text_state.pop("encoder.embed_tokens.weight", None)  # another name of shared.weight
    try:
        for network, name in ((transformer, "transformer"), (vae, "vae")):
            _save_weights(network.state_dict(), folder / name, "diffusion_pytorch_model", dtype)
            _save_config(network, folder / name)
        _save_weights(text_state, folder / "text_encoder", "model", dtype)
        prompts.encoder.config.save_pretrained(folder / "text_encoder")
        prompts.tokenizer.save_pretrained(folder / "tokenizer")
        shift = settings.shift_at(9 * 1560, settings.height * settings.width)
        FlowMatchEulerDiscreteScheduler(shift=shift).save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n", encoding="utf-8")
        (folder / "longtake.json").write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder}: the model could not be written ({error})") from error


def save_codec(folder: Path, vae: AutoencoderKLWan, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes a codec's folder alone, its weights in `dtype`.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    try:
        _save_weights(vae.state_dict(), folder, "diffusion_pytorch_model", dtype)
        _save_config(vae, folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{folder}: the codec could not be written ({error})") from error


def _save_config(network: AutoencoderKLWan | WanTransformer3DModel, folder: Path) -> None:
    """Writes config.json without the place that the network was loaded from, which says nothing to anyone else."""
    network.save_config(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_weights(state: dict[str, Tensor], folder: Path, stem: str, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}
    save_torch_state_dict(state, folder, filename_pattern=f"{stem}{{suffix}}.safetensors", metadata={"format": "pt"})
