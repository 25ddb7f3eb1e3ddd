"""Two processes, as torchrun starts them: one video, of which the first process says and writes everything."""

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from longtake.pipeline import Run

THREADS = """
import sys
from pathlib import Path
from longtake.cli import main
code = main(sys.argv[1:])
names = {task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")}
sys.exit(code if not any("gloo" in name for name in names) else 99)
"""


def started(rank, port, home, *arguments, command=("-m", "longtake")):
    world = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *command, *map(str, arguments)],
        cwd=home,
        env=os.environ | world,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(home, *arguments, **how):
    """Exit code, stdout and stderr of each of two processes."""
    # The first process offers its meeting place at a port of the system's choice in a store that the test holds.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # as torchrun says: the store is there already
    try:
        processes = [started(rank, store.port, home, *arguments, **how) for rank in range(2)]
        heard = [process.communicate(timeout=240) for process in processes]
    finally:
        del os.environ["TORCHELASTIC_USE_AGENT_STORE"]
    return [(process.returncode, *said) for process, said in zip(processes, heard, strict=True)]


@pytest.fixture
def asking(tiny_backbone_folder, tmp_path):
    Image.new("RGB", (48, 32), (200, 80, 40)).save(tmp_path / "start.png")
    return ["--model", tiny_backbone_folder, "--image", "start.png", "--prompt", "a red ball", "--device", "cpu"]


def latents(folder):
    run = Run.open(folder)
    return [run.read_section(section) for section in run.config.plan().sections]


def test_a_video_of_two_processes_is_that_of_one_but_for_rounding(asking, tmp_path):
    (code, out, err), (follower, nothing, said) = together(
        tmp_path, "generate", *asking, "--output", "two.mp4", "--json"
    )
    assert (code, follower) == (0, 0), err + said
    assert nothing == ""
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["remarks"] == ["2 processes share the tokens"]
    assert events[-1]["event"] == "finished"
    alone = subprocess.run(
        [sys.executable, "-m", "longtake", "generate", *map(str, asking), "--output", "one.mp4"],
        cwd=tmp_path,
        timeout=240,
    )
    assert alone.returncode == 0
    for ours, expected in zip(latents(tmp_path / "two.run"), latents(tmp_path / "one.run"), strict=True):
        # Each section is made from the roundings of those before it.
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)


def test_what_cannot_be_shared_ends_both_processes_with_the_reason(asking, tmp_path):
    (code, _, err), (follower, _, _) = together(
        tmp_path, "generate", *asking, "--output", "two.mp4", "--cache", "first_block"
    )
    assert (code, follower) == (2, 0)
    assert "step caches decide by the tokens of one device" in err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are looked up in /proc")
@pytest.mark.parametrize(("more", "codes"), [([], [0, 0]), (["--cache", "first_block"], [2, 0])])
def test_no_thread_outlives_the_company(asking, tmp_path, more, codes):
    """One that lets go of a tensor while Python ends would abort the process, now and then."""
    ended = together(tmp_path, "generate", *asking, "--output", "two.mp4", *more, command=("-c", THREADS))
    assert [code for code, _, _ in ended] == codes
