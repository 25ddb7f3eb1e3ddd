"""`longtake worker`: makes the videos that are asked of a server, on this machine."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from longtake.cli.machine import Machine
from longtake.errors import InputError

__all__ = ["Options", "run"]

TOKEN = "LONGTAKE_TOKEN"


@dataclass(frozen=True, slots=True)
class Options:
    """Makes the videos that are asked of a server, on this machine, one after the other.

    What a section needs is sent as soon as the section is made, so a worker may be killed at any time: the next one
    goes on from there. SIGTERM and Ctrl-C give the job back at its next step.
    """

    server: str = "http://127.0.0.1:7860"
    """The server's address, as longtake serve says it."""
    name: str | None = None
    """What the server calls this worker; default: the machine's name and the process."""
    token: str | None = None
    """The server's token, if it has one; default: the environment's LONGTAKE_TOKEN, which other users do not see."""
    scratch: Path | None = None
    """Where runs lie while they are made; default: the system's folder for temporary files."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    once: bool = False
    """Leave after one job, or if there is none."""


def run(options: Options) -> int:
    """Works until it is told to leave."""
    import logging

    o = options
    if not o.server.startswith(("http://", "https://")):
        raise InputError(f"{o.server}: not the address of a server; http://127.0.0.1:7860 would be one")

    from longtake.pipeline import find_device
    from longtake.web.worker import Worker, WorkerSettings, until_told

    find_device(o.machine.device)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = WorkerSettings(
        server=o.server,
        name=o.name or f"{socket.gethostname()}-{os.getpid()}",
        token=o.token or os.environ.get(TOKEN, ""),
        scratch=o.scratch,
        runtime=o.machine.runtime(o.machine.device),
        once=o.once,
    )
    worker = Worker(settings)
    with until_told(worker):
        worker.run()
    return 0
