"""Networks that predict velocity, with their codecs and prompt encoders. The only package that knows diffusers."""

from longtake.backbones.backbone import Backbone
from longtake.backbones.codec import Codec, Intake, Stream
from longtake.backbones.loading import Outline, inspect_model, load_backbone, load_codec, load_settings
from longtake.backbones.prompts import PromptEncoder, PromptReport
from longtake.backbones.registry import MODELS, find_model
from longtake.backbones.settings import BackboneSettings

__all__ = [
    "MODELS",
    "Backbone",
    "BackboneSettings",
    "Codec",
    "Intake",
    "Outline",
    "PromptEncoder",
    "PromptReport",
    "Stream",
    "find_model",
    "inspect_model",
    "load_backbone",
    "load_codec",
    "load_settings",
]
