"""The command line of longtake, each of whose lines of JSON also says what its process has held since the one before.

    python benchmarks/watched.py CAP generate --json ...       CAP: GiB that PyTorch may allocate on the device; 0: all

Beside what the line says: `at`, seconds since 1970; `allocated` and `reserved`, the peaks of PyTorch's memory on the
device; `private` and `mapped`, those of the process's own pages and of its pages of files, which the system takes back
when it wants to (Linux, looked at ten times a second). A last line of each process says the same.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

import torch

from longtake.cli import main

PAGES = {"RssAnon": "private", "RssFile": "mapped"}  # in /proc/self/status, in KiB
OFTEN = 0.1  # seconds


class Watched(io.TextIOBase):
    """A standard output of lines of JSON."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.peaks, self.lock = out, dict.fromkeys(PAGES.values(), 0), threading.Lock()

    def write(self, text: str) -> int:
        """Passes a line on."""
        if text.startswith("{"):
            self.out.write(json.dumps(json.loads(text) | {"at": time.time()} | self.held()) + "\n")
        elif text.strip():  # print gives the end of a line by itself
            self.out.write(text)
        return len(text)

    def flush(self) -> None:
        """Passes that on, too."""
        self.out.flush()

    def held(self) -> dict[str, int]:
        """The peaks since this was asked last, in bytes."""
        self.look()
        with self.lock:
            found, self.peaks = self.peaks, dict.fromkeys(PAGES.values(), 0)
        if torch.cuda.is_available():
            found |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
            torch.cuda.reset_peak_memory_stats()
        return found

    def look(self) -> None:
        """Raises the peaks of host memory to what is held now."""
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        now = {PAGES[words[0][:-1]]: int(words[1]) << 10 for words in lines if words[0][:-1] in PAGES}
        with self.lock:
            self.peaks = {name: max(peak, now[name]) for name, peak in self.peaks.items()}

    def look_often(self) -> None:
        """Until the process ends."""
        while True:
            self.look()
            time.sleep(OFTEN)


if __name__ == "__main__":
    rank, cap = int(os.environ.get("LOCAL_RANK", "0")), float(sys.argv[1])
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        total = torch.cuda.get_device_properties(rank).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap * 2**30 / total) if cap else 1.0)
    watched = Watched(sys.stdout)
    threading.Thread(target=watched.look_often, daemon=True).start()
    with redirect_stdout(watched):
        code = main(sys.argv[2:])
        print(json.dumps({"event": "left", "rank": rank}), flush=True)
    sys.exit(code)
