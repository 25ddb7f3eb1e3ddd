import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from longtake.backbones import MODELS
from longtake.cli import main
from longtake.cli.findings import draw_machine, draw_model, draw_models
from longtake.pipeline.checkup import Wish, check_up
from longtake.pipeline.machine import Device, Machine
from longtake.pipeline.rates import Rates

GIB = 2**30
LAPTOP = Machine(
    device=Device(
        kind="cuda",
        name="NVIDIA GeForce RTX 3060 Laptop GPU",
        total=6 * GIB,
        free=int(5.8 * GIB),
        capability="8.6",
        bf16=True,
        fp8=False,
        kernels=("native", "flash", "efficient", "math", "tiled", "sage"),
        kernel="flash",
        link="16.0 GT/s PCIe x8",
    ),
    host=32 * GIB,
    host_free=29 * GIB,
    pinnable=27 * GIB,
    cores=8,
    hub=Path("hub"),
    hub_free=10**12,
    folder=Path("here"),
    folder_free=10**12,
    system="Linux 6.18",
    torch="2.13.0+cu130",
    cuda="13.0",
    driver=True,
)
RATES = Rates(linear=30e12, attention=28e12, copy=300e9, link=12e9, decoding=7.5e12)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def assert_readable(page):
    assert page.isascii()
    assert max(map(len, page.splitlines())) <= 80


def test_the_embedded_model_can_be_run(capsys):
    assert main(["doctor", "--model", "embedded", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for word in ("attention", "780: 540 noisy, 240 of history, 40 of text", "all here", ">  resident", "A minute of"):
        assert word in said.out
    assert_readable(
        "\n".join(line for line in said.out.splitlines() if "/" not in line)
    )  # paths are as long as they are


def test_a_model_that_is_not_here_cannot_be_run_and_what_would_do_is_said(capsys):
    assert main(["doctor", "--model", "framepack-i2v", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "18,485: 13,680 noisy, 3,820 of history, 256 of text, 729 of the image" in said
    assert "to fetch them: longtake models framepack-i2v --fetch" in said


def test_all_of_it_is_data(capsys):
    arguments = ["--height", "64", "--width", "96", "--steps", "4", "--true-cfg-scale", "2", "--schedule", "f1k1_g9"]
    assert main(["doctor", "--model", "embedded", "--device", "cpu", "--json", *arguments]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["machine"]["device"]["kind"] == "cpu"
    assert set(table["rates"]) == {"linear", "attention", "copy", "link", "decoding"}
    (model,) = table["models"]
    assert model["ready"]
    assert model["chosen"] == "resident"
    assert model["work"]["tokens"] == {"noisy": 216, "history": 24, "text": 40, "image": 0, "joint": False}
    assert (model["work"]["steps"], model["work"]["passes"]) == (4, 2)
    (way,) = model["ways"]
    assert way["seconds"]["section"] == pytest.approx(way["seconds"]["denoising"] + way["seconds"]["decoding"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--height", "96"], "expected --model NAME"),
        (["--profile", "resident"], "expected --model NAME"),
        (["--model", "nothing"], "unknown model 'nothing'"),
        (["--model", "embedded", "--height", "100"], "try 96 or 112"),
        (["--model", "embedded", "--device", "cpu", "--profile", "staged"], "there are auto, resident"),
        (["--device", "abacus"], "there is no device 'abacus'"),
    ],
)
def test_what_cannot_be_is_refused(capsys, arguments, message):
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


def test_a_laptop_is_told_how_framepack_would_be_placed():
    page = draw_machine(LAPTOP, RATES) + "\n" + draw_model(check_up("framepack-i2v", LAPTOP, RATES, Wish()), LAPTOP)
    for line in (
        "memory     6.0 GiB, of which 5.8 GiB are free",
        "size       640 x 608 (height x width), one of 14 that it was made for",
        ">  streamed-tables      halves     5.4  25.9    16.9      9 min",
        "> streamed-tables is how it would be placed.",
    ):
        assert line in page.splitlines()
    assert "What reads prompts is larger than the device" in page
    assert_readable("\n".join(line for line in page.splitlines() if not line.startswith("videos")))


def test_a_refusal_stands_below_the_ways_and_what_they_lack():
    small = replace(LAPTOP, device=replace(LAPTOP.device, free=3 * GIB))
    page = draw_model(check_up("framepack-f1", small, RATES, Wish()), small)
    assert "framepack-f1 does not fit here: streamed-tables needs 4.4" in page
    assert "\n>" not in page
    assert " device\n" in page


def test_each_model_has_a_line_that_says_whether_it_fits():
    names = ("embedded", "framepack-i2v", "wan2.2-a14b")
    page = draw_models([check_up(name, LAPTOP, RATES, Wish()) for name in names])
    lines = [line.split() for line in page.splitlines() if line[:1] in "+-" and line[1:3] == "  "]
    assert [line[1].strip("()") for line in lines] == list(names)
    marks = {line[1]: line[0] for line in lines}
    assert marks["embedded"] == marks["framepack-i2v"] == "+"
    assert marks["(wan2.2-a14b)"] == "-"
    assert_readable(page)


def test_without_a_name_every_model_is_looked_at():
    command = [sys.executable, "-m", "longtake", "doctor", "--device", "cpu", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [model["model"] for model in json.loads(ran.stdout)["models"]] == list(MODELS)


def test_the_guide_shows_what_such_a_laptop_is_told():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "framepack.md").read_text()
    (shown,) = (block for block in guide.split("```") if block.startswith("\nmodel "))
    page = draw_model(check_up("framepack-i2v", LAPTOP, RATES, Wish()), LAPTOP).splitlines()
    assert [line for line in shown.splitlines() if line and not line.startswith("weights") and line not in page] == []
