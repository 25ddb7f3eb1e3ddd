"""The engine, imported beside everything else: torch takes seconds, and the page does not wait for it."""

from __future__ import annotations

import importlib
import logging
from threading import Event, Thread
from typing import Literal

from longtake.web.refusal import Refusal

__all__ = ["Engine"]

LOG = logging.getLogger("longtake.web")
MODULES = ("longtake.pipeline", "longtake.backbones")
PATIENCE = 120.0  # seconds that a call waits for the import


class Engine:
    """Whether longtake's engine can be used yet."""

    def __init__(self) -> None:
        self.state: Literal["loading", "ready", "failed"] = "loading"
        self._done = Event()

    def start(self) -> None:
        """Begins to import it in a thread."""
        Thread(target=self._load, name="engine", daemon=True).start()

    def _load(self) -> None:
        try:
            for module in MODULES:
                importlib.import_module(module)
            self.state = "ready"
        except Exception:  # whatever a library does when it cannot be loaded here
            LOG.exception("the engine cannot be loaded")
            self.state = "failed"
        finally:
            self._done.set()

    def wait(self) -> None:
        """Waits until it is there.

        Raises:
            Refusal: it cannot be imported, or takes too long.
        """
        if not self._done.wait(PATIENCE) or self.state != "ready":
            raise Refusal("server_error", "the engine cannot be loaded here; longtake doctor says what is lacking")
