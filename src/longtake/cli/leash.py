"""A verb of longtake that does not outlive the process that started it: its standard input ends with that.

python -m longtake.cli.leash worker --server URL
"""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["main"]

GRACE = 15.0  # seconds to put the work down


def main() -> int:
    """Runs the verb. When the input ends, it is asked to leave, and then it is left no choice."""
    ended = threading.Thread(target=_watch, daemon=True)
    ended.start()
    from longtake.cli import main as run

    return run(sys.argv[1:])


def _watch() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
