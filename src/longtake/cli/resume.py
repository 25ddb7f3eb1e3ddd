"""`longtake resume RUN`: go on with a run, or make it again from one of its sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from longtake.cli.machine import Machine
from longtake.errors import InputError

if TYPE_CHECKING:
    from longtake.pipeline import Company

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """Goes on with a run that was stopped; the video is the one that an undisturbed run would have made.

    With --from-section K --seed S everything from the section made as number K (from 0) on is made again from seed S.
    Another device than before changes the last bits.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    output: Path | None = None
    """The finished video; default: where it was to go when the run began, or beside a run that was copied since."""
    from_section: int | None = None
    """The first section to make again, in the order of making, from 0."""
    seed: int | None = None
    """The seed of the sections that are made again."""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    json: bool = False
    """Lines of JSON on stdout instead of a progress bar."""


def run(options: Options) -> int:
    """Goes on."""
    from longtake.pipeline import Company, find_device

    if (options.from_section is None) != (options.seed is None):
        raise InputError("--from-section and --seed go together: which section to begin with, and its new seed")
    find_device(options.machine.device)
    with Company.join(options.machine.device) as company:
        if company.leads:
            return _go_on(options, company)
        company.follow()
    return 0


def _go_on(options: Options, company: Company) -> int:
    from longtake.cli.progress import follow
    from longtake.pipeline import Run, check_output, make, reroll

    run = Run.open(options.folder)
    output = options.output or run.output
    if options.from_section is not None and options.seed is not None:
        check_output(output)
        run = reroll(run, options.from_section, options.seed)
    runtime = options.machine.runtime(company.device)
    return follow(make(run, output, runtime=runtime, company=company), options.folder, options.json)
