"""Makes runs again and again, each time in a child that is killed (-9) at another of its file operations.

usage: killed.py FOLDER SEED KILLS REQUEST... The runs of a request are FOLDER/ORDER/whole.run, which is not killed,
and FOLDER/ORDER/0.run, 1.run, ... Children are forked, so that the model is loaded once.
"""

import os
import random
import signal
import sys
from pathlib import Path

from longtake.backbones import load_backbone
from longtake.pipeline import Extension, extend, generate
from longtake.pipeline.run import REQUESTS

OPERATIONS = ("open", "os.rename", "os.remove", "os.truncate")


def attempt(request, folder, number, backbone, last):
    """The number of file operations in the run's folder, in a child that dies at operation `last`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as file:
            return int(file.read() or -1)
    done = 0

    def watch(event, arguments):
        nonlocal done
        if event in OPERATIONS and str(folder) in str(arguments[0]):
            done += 1
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    work = extend if isinstance(request, Extension) else generate
    list(work(request, folder / f"{number}.mp4", folder / f"{number}.run", backbone))
    os.write(writer, str(done).encode())
    os._exit(0)


def main():
    root, rng, kills = Path(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
    requests = [REQUESTS.validate_json(text) for text in sys.argv[4:]]
    backbone = load_backbone(requests[0].model)
    for request in requests:
        folder = root / request.order
        folder.mkdir()
        operations = attempt(request, folder, "whole", backbone, last=0)
        for number, moment in enumerate(sorted(rng.sample(range(1, operations + 1), kills))):
            assert attempt(request, folder, number, backbone, last=moment) == -1


if __name__ == "__main__":
    main()
