"""Networks that predict velocity, with their codecs and prompt encoders. The only package that knows diffusers."""

from longtake.backbones.backbone import Backbone
from longtake.backbones.catalog import MODELS, ModelRow, Part
from longtake.backbones.checking import check_model
from longtake.backbones.codec import Codec, Intake, Stream
from longtake.backbones.fetching import fetch
from longtake.backbones.loading import Outline, inspect_model, load_backbone, load_codec, load_settings
from longtake.backbones.parts import FoundModel, FoundPart, Manifest, find_parts, manifest_of
from longtake.backbones.prompts import PromptEncoder, PromptReport
from longtake.backbones.registry import find_model, find_row, said_bytes
from longtake.backbones.settings import BackboneSettings

__all__ = [
    "MODELS",
    "Backbone",
    "BackboneSettings",
    "Codec",
    "FoundModel",
    "FoundPart",
    "Intake",
    "Manifest",
    "ModelRow",
    "Outline",
    "Part",
    "PromptEncoder",
    "PromptReport",
    "Stream",
    "check_model",
    "fetch",
    "find_model",
    "find_parts",
    "find_row",
    "inspect_model",
    "load_backbone",
    "load_codec",
    "load_settings",
    "manifest_of",
    "said_bytes",
]
