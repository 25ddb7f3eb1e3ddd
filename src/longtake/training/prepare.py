"""From a config and folders to a stage that can be trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from longtake.backbones import Backbone, BackboneSettings, Codec, PromptEncoder, find_model, load_backbone, load_codec
from longtake.backbones.architecture import new_codec, new_text_encoder, new_tokenizer, new_transformer
from longtake.errors import ConfigError, ModelError
from longtake.plan import order_of
from longtake.toybox import VOCABULARY
from longtake.training.cache import Tracks, encode_tracks, fingerprint, load_tracks, save_tracks
from longtake.training.clips import Clips, open_clips
from longtake.training.codec import CodecStage
from longtake.training.config import CodecConfig, SectionConfig
from longtake.training.loop import Stage
from longtake.training.parallel import ALONE, World
from longtake.training.sections import SectionStage

__all__ = ["prepare"]


def prepare(
    config: CodecConfig | SectionConfig,
    clips: Path,
    held_out: Path,
    model: Path | None,
    device: str,
    limit: int | None = None,
    cache: Path | None = None,
    codec: Path | None = None,
    world: World = ALONE,
) -> Stage:
    """The stage of a config, with its clips opened and, for `base` and `pack`, encoded.

    It goes on from `model`, a folder or a known name, with the codec of the folder `codec` instead of its own.
    With a folder `cache` latents and captions are kept there and taken from there; they depend on the clips, the codec
    and the starts alone, so one cache serves every schedule and order. The processes of a world share the encoding.

    Raises:
        ConfigError: a model folder is missing for a stage that starts from one, a codec is given to the stage that
            trains one, or the cache is of other clips or another codec.
        ModelError: a model is unknown or cannot be loaded.
    """
    train, test = open_clips(clips, limit), open_clips(held_out)
    folder = None if model is None else find_model(model)
    if isinstance(config, CodecConfig):
        if codec is not None:
            raise ConfigError("stage codec goes on from the codec of --model; --codec is for base and pack")
        torch.manual_seed(config.loop.seed)
        network = new_codec(config.shape) if folder is None else load_codec(folder / "vae").network
        return CodecStage(config, network, train, test, device, world.rank)
    if folder is None:
        raise ConfigError(f"stage {config.stage} needs --model: a folder with a codec (base) or a base model (pack)")
    place, dtype = torch.device(device), getattr(torch, config.dtype)
    if (folder / "transformer").exists():
        backbone = load_backbone(str(model), device=device, dtype=dtype)  # a name says more than its folder
        _check_trainable(backbone, model, train)
    else:
        backbone = _new_backbone(config, load_codec(folder / "vae", device=device, dtype=dtype), train, place, dtype)
    backbone = replace(backbone, settings=_settings(config, backbone.settings))
    if codec is not None:
        fresh = load_codec(find_model(codec) / "vae", device=device, dtype=dtype)
        backbone = replace(backbone, codec=fresh, codebooks={})

    def encode(source: Clips, mirror: bool) -> Tracks:
        return encode_tracks(backbone.codec, source, config.starts, config.generated, place, dtype, mirror, world=world)

    def kept(name: str, source: Clips, mirror: bool) -> Tracks:
        if cache is None:
            return encode(source, mirror)
        path, sign = cache / name, fingerprint(backbone.codec, source, config.starts, mirror)
        if not world.agree(path.exists(), place):
            tracks = encode(source, mirror)
            if world.rank == 0:
                save_tracks(tracks, path, sign)
            return tracks
        return load_tracks(path, place, sign)

    tracks = kept("train.safetensors", train, config.mirror)
    return SectionStage(config, backbone, tracks, kept("held-out.safetensors", test, False), world.rank)


def _check_trainable(backbone: Backbone, model: Path | None, clips: Clips) -> None:
    """Checks, before any clip is encoded, that training knows this kind of model and that the clips fit it."""
    if backbone.settings.manner != "stream":
        raise ModelError(f"{model}: only models are trained whose sections follow each other in one stream")
    if not isinstance(backbone.prompts, PromptEncoder):
        raise ModelError(f"{model}: training knows models that read prompts with UMT5 and nothing else, as Wan's t2v")
    if backbone.second is not None:
        raise ModelError(f"{model}: training knows models of one transformer; give a folder with one of the two")
    height, width = backbone.grid
    if clips.height % height or clips.width % width:
        raise ConfigError(
            f"clips of {clips.height} x {clips.width} are off the grid of {model}: expected multiples of "
            f"{height} x {width} pixels"
        )


def _settings(config: SectionConfig, before: BackboneSettings) -> BackboneSettings:
    """What the model is trained for, and what it keeps of the settings that it had."""
    order = before.order if order_of(before.order) in config.schedules else next(iter(config.schedules))
    trained = {"schedules": config.schedules, "gaps": config.gaps, "order": order}
    shift = {} if config.shift == "model" else {"shift": config.shift}
    return BackboneSettings.model_validate({**before.model_dump(), **trained, **shift, **config.use.settings})


def _new_backbone(
    config: SectionConfig, codec: Codec, clips: Clips, device: torch.device, dtype: torch.dtype
) -> Backbone:
    torch.manual_seed(config.loop.seed)
    tokenizer = new_tokenizer(VOCABULARY)
    encoder, transformer = new_text_encoder(config.text, len(tokenizer)), new_transformer(config.shape)
    for network in (encoder, transformer):
        nn.Module.to(network, device=device, dtype=dtype)
    settings = BackboneSettings(
        schedules=config.schedules,
        gaps=config.gaps,
        order=next(iter(config.schedules)),
        steps=8,
        shift=3.0 if config.shift == "model" else config.shift,
        guidance=1.0,
        fps=12.0,
        height=clips.height,
        width=clips.width,
        text_length=config.text_length,
    )
    return Backbone.assemble(
        name="new",
        transformer=transformer,
        codec=codec,
        prompts=PromptEncoder(encoder, tokenizer, config.text_length),
        settings=settings,
    )
