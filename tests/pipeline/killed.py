"""Makes a run again and again, each time in a child that is killed (-9) at another of its file operations.

usage: killed.py REQUEST FOLDER SEED KILLS. Run folders are FOLDER/0.run, ...; children are forked, so that the model
is loaded once. The last line on stdout is the number of file operations of an undisturbed run.
"""

import os
import random
import signal
import sys
from pathlib import Path

from longtake.backbones import load_backbone
from longtake.pipeline import Request, generate

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
    list(generate(request, folder / f"{number}.mp4", folder / f"{number}.run", backbone))
    os.write(writer, str(done).encode())
    os._exit(0)


def main():
    request, folder = Request.model_validate_json(sys.argv[1]), Path(sys.argv[2])
    backbone = load_backbone(request.model)
    operations = attempt(request, folder, "whole", backbone, last=0)
    moments = random.Random(int(sys.argv[3])).sample(range(1, operations + 1), int(sys.argv[4]))
    for number, moment in enumerate(sorted(moments)):
        attempt(request, folder, number, backbone, last=moment)
        print(f"{number} was killed at operation {moment}", flush=True)
    print(operations)


if __name__ == "__main__":
    main()
