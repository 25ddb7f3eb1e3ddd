"""The command line: one module a verb, loaded when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from longtake.errors import LongtakeError

__all__ = ["VERBS", "main"]

VERBS = {
    "demo": "make a 30 s video with the model that comes with longtake, and say where it is",
    "generate": "make a video from a start image and a prompt",
    "extend": "make a video longer: what comes after it, or what was before it",
    "resume": "go on with a run that was stopped, or make it again from one of its sections",
    "serve": "open the studio: a page that makes videos, and an HTTP interface",
    "show": "draw a schedule and the plan of a video, or a run with its drift and motion",
    "doctor": "say what this machine can run, how fast, and what is lacking",
    "models": "list the models that are known by name, and what of them is here",
    "worker": "make the videos that are asked of a server, on this machine",
    "train": "train a codec, a video model, or a next-frame-section model",
}
SPINS = "3000"  # of a waiting thread before it sleeps, in GNU OpenMP, which torch uses on a CPU
HELP = "\n".join(
    [
        "longtake: long videos, section by section.",
        "",
        "usage: longtake VERB [options]        longtake VERB --help tells a verb's options",
        "",
        *(f"  {verb:<10} {what}" for verb, what in VERBS.items()),
        "",
        "The first video:  longtake demo",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb. Exit codes: 0 done, 1 it cannot be run (doctor), 2 refused with a reason, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(version("longtake"))
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        print(f"error: there is no verb {verb!r}; there are: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    # A thread that spins for long keeps the core that the thread it waits for could have. On 2 cores, beside another
    # busy process, a section of the demo takes 37 s by default and 7 s so; alone, 3.6 s and 3.7 s.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    import inspect

    import tyro

    module = importlib.import_module(f"longtake.cli.{verb}")
    try:
        options = tyro.cli(
            module.Options,
            args=arguments[1:],
            prog=f"longtake {verb}",
            description=inspect.cleandoc(module.Options.__doc__),
            config=(tyro.conf.DisallowNone,),  # what is not said is left out
        )
        code = module.run(options)
        sys.stdout.flush()
        return code
    except LongtakeError as error:
        lines = str(error).replace("\n", "\n" + " " * len("error: "))  # a caret stays under its place
        print(f"error: {lines}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
