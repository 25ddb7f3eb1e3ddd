"""The model that was loaded last, for whoever makes videos one after the other."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from longtake.backbones import Backbone, load_backbone
from longtake.backbones.blueprints import blueprint_of
from longtake.backbones.hunyuan.codec import Tiled
from longtake.backbones.outline import Loaded
from longtake.backbones.running import Runtime
from longtake.backbones.workload import Tiling
from longtake.pipeline.machine import Device, probe_machine
from longtake.pipeline.needs import Need, check_hardware, usable
from longtake.pipeline.request import Config

__all__ = ["Placed", "Shelf"]

TILED: Mapping[Tiling, Tiled] = {"whole": False, "halves": "halves", "tiles": True}


@dataclass(frozen=True, slots=True)
class Placed:
    """A model that is loaded, and how it is to run."""

    backbone: Backbone
    runtime: Runtime  # its profile is no longer "auto"
    tiled: Tiled  # how the codec passes images


class Shelf:
    """Holds one model at most: it is taken down for a video that wants it in the same way, else freed for another."""

    def __init__(self, load: Callable[[str, Loaded], Backbone] | None = None) -> None:
        self._load = load or (lambda name, how: load_backbone(name, how=how))
        self._held: Placed | None = None
        self._wanted: tuple[object, ...] = ()

    def take(self, config: Config, device: torch.device, runtime: Runtime, folder: Path) -> Placed:
        """The model of a video, as it fits this machine; the one that is held, if that is the one.

        Raises:
            HardwareError: it does not fit.
            ModelError: it cannot be loaded.
        """
        c = config
        loaded = (c.model, c.parts, c.loras, c.storage, c.fp8, device, runtime)
        wanted = (*loaded, c.height, c.width, c.schedule)  # how it fits depends on the size, too
        if self._held and wanted == self._wanted and self._has_room(config, probe_machine(device, folder).device):
            return self._held
        self.clear()
        need = check_hardware(c.model, c, runtime.profile, probe_machine(device, folder), runtime.attention)
        backbone = self._load(c.model, _how(c, device, need))
        self._held = Placed(backbone, replace(runtime, profile=need.name), TILED[need.tiling])
        self._wanted = wanted
        return self._held

    def clear(self) -> None:
        """Frees the model that is held."""
        self._held, self._wanted = None, ()
        gc.collect()  # networks hold themselves in cycles
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()

    def _has_room(self, config: Config, device: Device) -> bool:
        """True if an encoder can come beside the model that is held; on a first loading it comes before the network."""
        encoders = blueprint_of(config.model, device.dtype, config.parts).encoders
        return usable(device) > max(encoders, default=0) * device.dtype.itemsize


def _how(config: Config, device: torch.device, need: Need) -> Loaded:
    return Loaded(
        device,
        places=config.parts,
        loras=config.loras,
        storage=config.storage,
        fp8=config.fp8,
        rest=device.type != "cpu",
        visits=need.encoders == "host",
    )
