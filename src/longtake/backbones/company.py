"""One video on all devices that torchrun was started for: the first process makes it, the others compute along.

    torchrun --nproc-per-node 2 -m longtake generate ...

    first process                                   every other
    with Company.join("auto") as company:           with Company.join("auto") as company:
        generate(..., company=company)                  company.follow()
            load(name, how)             -- told -->         the same network is loaded
            running(...)                -- told -->         and set up
                transformer(...)        -- told -->             a part of the tokens

Plan, prompts, history, codec and files are the first process's alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import distributed

from longtake.backbones.backbone import Backbone
from longtake.backbones.loading import load_backbone
from longtake.backbones.outline import Loaded
from longtake.backbones.parallel import Crew, share_sequence
from longtake.backbones.parallel.joining import join
from longtake.backbones.running import Demand, Runtime, running
from longtake.backbones.settings import BackboneSettings
from longtake.errors import InputError, LongtakeError, ModelError

__all__ = ["Company"]


class Company:
    """The processes of one video; alone, there is one and nothing is told."""

    def __init__(self, device: str, crew: Crew | None = None) -> None:
        self.device, self._crew = device, crew
        self._backbone: Backbone | None = None
        self._setting = ExitStack()
        if crew is not None:
            self._load = crew.everywhere(self._load)
            self._set_up = crew.everywhere(self._set_up)
            self._put_away = crew.everywhere(self._put_away)

    @classmethod
    def join(cls, device: str) -> Company:
        """This process's company, as torchrun's environment says; `auto` is a GPU where there is one.

        Raises:
            InputError: a device has been named where each process needs its own, or there are too few.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device)
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if kind not in ("cpu", "cuda"):
            raise InputError(f"--device {device}: each process has a device of its own; cuda, cpu or auto would do")
        if kind == "cuda" and torch.cuda.device_count() <= int(os.environ["LOCAL_RANK"]):
            raise InputError(f"there are {torch.cuda.device_count()} GPUs here: start so many processes")
        joined = join(kind)
        assert distributed.group.WORLD is not None
        return cls(joined.device, Crew(distributed.group.WORLD, torch.device(joined.device)))

    @property
    def leads(self) -> bool:
        """True for the process that makes the video."""
        return self._crew is None or self._crew.leads

    def __enter__(self) -> Company:
        return self

    def __exit__(self, *_: object) -> None:
        """Lets the others go, if this process leads."""
        if self._crew is None:
            return
        if self._crew.leads:
            self._crew.leave()
        self._crew.close()

    def follow(self) -> None:
        """Does what the first process tells, until it leaves."""
        if self._crew is not None:
            self._crew.follow()

    def load(self, name: str, how: Loaded) -> Backbone:
        """The model, in all processes, each on its own device; gives the first one's.

        Raises:
            ModelError: it cannot be loaded, in one of them.
        """
        if self._crew is None:
            return load_backbone(name, how=how)
        self._load(name, how)
        assert self._backbone is not None
        return self._backbone

    @contextmanager
    def running(self, backbone: Backbone, device: torch.device, runtime: Runtime, demand: Demand) -> Iterator[Backbone]:
        """As `longtake.backbones.running.running`, with the tokens divided among the processes.

        Raises:
            ModelError: the network's tokens cannot be divided among so many.
        """
        if self._crew is None:
            with running(backbone, device, runtime, demand) as ready:
                yield ready
            return
        if demand.cache != "none":
            raise ModelError("step caches decide by the tokens of one device: leave out --cache and --draft here")
        self._backbone = backbone
        try:
            self._set_up(backbone.settings, runtime, demand)
            yield self._backbone
        finally:
            self._put_away()

    def _load(self, name: str, how: Loaded) -> None:
        device = torch.device(self.device)
        visits = how.visits or not self.leads  # nobody else reads
        with self._agreed():
            self._backbone = load_backbone(name, how=replace(how, device=device, visits=visits))

    def _set_up(self, settings: BackboneSettings, runtime: Runtime, demand: Demand) -> None:
        crew, backbone, device = self._crew, self._backbone, torch.device(self.device)
        assert crew is not None
        assert backbone is not None
        with self._agreed():
            ready = self._setting.enter_context(
                running(replace(backbone, settings=settings), device, runtime, demand, shared=True)
            )
            networks = [network for network in (ready, ready.second) if network is not None]
            for network in networks:
                self._setting.callback(share_sequence(network.transformer, crew.group).remove)
        for network in networks:
            self._setting.callback(crew.call_together(network.transformer, network.seams))
        self._backbone = replace(ready, remarks=(*ready.remarks, f"{crew.group.size()} processes share the tokens"))

    def _put_away(self) -> None:
        self._setting.close()

    @contextmanager
    def _agreed(self) -> Iterator[None]:
        """Raises what went wrong in any process in all of them, so that none waits for one that is not coming."""
        assert self._crew is not None
        wrong: LongtakeError | None = None
        try:
            yield
        except LongtakeError as error:
            wrong = error
        others = self._crew.compare(None if wrong is None else str(wrong))
        if wrong is not None:
            raise wrong
        if any(others):
            raise ModelError(next(filter(None, others)))
