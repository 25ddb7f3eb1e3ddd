"""A transformer in one file: safetensors or GGUF, under whatever names, in whatever type.

tensors   what a file holds, each tensor as it is stored; gguf for files of that kind
sizes     the config of a network, read off its tensors
network   a file becomes a network
"""

from longtake.backbones.single_file.entries import Entry, TensorFile
from longtake.backbones.single_file.network import check_transformer_file, load_transformer_file
from longtake.backbones.single_file.sizes import config_for, kind_of
from longtake.backbones.single_file.tensors import open_tensors

__all__ = [
    "Entry",
    "TensorFile",
    "check_transformer_file",
    "config_for",
    "kind_of",
    "load_transformer_file",
    "open_tensors",
]
