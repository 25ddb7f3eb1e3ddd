"""What the command line answers before any work starts, and how it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from longtake.cli import VERBS, main

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def there(tmp_path, tiny_backbone_folder, monkeypatch):
    """A folder to work in, with a start image; the model is beside it."""
    folder = tmp_path / "there"
    folder.mkdir()
    gradient = np.mgrid[:40, :70].sum(0)[..., None].repeat(3, -1).astype(np.uint8)
    Image.fromarray(gradient).save(folder / "start.png")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def generate(there, tiny_backbone_folder):
    """The exit code of `longtake generate` with the tiny model, one section long."""

    def call(*options, image="start.png", model=tiny_backbone_folder):
        given = ["--image", str(image)] if image else []
        return main(["generate", *given, "--model", str(model), "--seconds", "3", *map(str, options)])

    return call


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_verbs(capsys, arguments):
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for verb, what in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(what)}$", said.out, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_in_plain_paragraphs(capsys, verb):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert "\n\n\n" not in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == version("longtake") + "\n"


@pytest.mark.parametrize("verb", ["make", "Generate", "--image"])
def test_an_unknown_verb_is_refused_with_those_there_are(capsys, verb):
    assert main([verb]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"error: there is no verb {verb!r}; there are: {', '.join(VERBS)}\n"


@pytest.mark.parametrize("verb", ["demo", "generate", "resume", "train"])
def test_every_verb_explains_its_options(capsys, verb):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert f"longtake {verb}" in said
    assert "--output" in said


@pytest.mark.parametrize("wrong", [["--sedd", "3"], ["--seed", "three"], ["--order"], ["surplus"]])
def test_an_option_that_cannot_be_read_exits_with_2(capsys, there, wrong):
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "--image", "start.png", *wrong])
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""
    assert sorted(files(there)) == ["start.png"]


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(generate, there, capsys):
    assert generate("--dry-run", "--seed", 3) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "1 section, 37 images of 48 x 32, 3.08 s at 12 images/s"
    assert (
        "order vanilla, schedule td_f1k1_x_f16k4f2k2f1k1_g9_x_f1k1f2k2f4k4, 2 steps (euler), guidance 1, seed 3"
        in said.out
    )
    assert "54 tokens a section, at most 12 of context; about 0.0 MiB of disk" in said.out
    assert "placed as resident: about " in said.out
    assert sorted(files(there)) == ["start.png"]


def test_a_dry_run_says_what_changes_the_video_besides(generate, capsys):
    assert generate("--dry-run", "--storage", "int8", "--history-sigma", "0.1", "--fp8") == 0
    assert "with storage int8, history sigma 0.1, fp8" in capsys.readouterr().out.splitlines()
    assert generate("--dry-run") == 0
    assert "with" not in capsys.readouterr().out


def test_a_dry_run_checks_memory(generate, monkeypatch, capsys):
    assert generate("--dry-run", "--device", "cpu", "--profile", "streamed") == 2
    assert "profile 'streamed': " in capsys.readouterr().err
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=3 << 30, available=2 << 30))
    assert generate("--dry-run", "--device", "cpu") == 2
    assert "does not fit here: resident needs 1." in capsys.readouterr().err


def test_a_dry_run_in_json_is_one_object(generate, there, capsys):
    assert generate("--dry-run", "--json", "--order", "inverted", "--steps", 5) == 0
    row = json.loads(capsys.readouterr().out)
    assert {name: row[name] for name in ("sections", "images", "section_tokens", "context_tokens")} == {
        "sections": 1, "images": 37, "section_tokens": 54, "context_tokens": 6,
    }  # fmt: skip
    assert (row["config"]["order"], row["config"]["steps"], row["config"]["frames"]) == ("inverted", 5, 10)
    assert sorted(files(there)) == ["start.png"]


@pytest.mark.parametrize(
    "spelled",
    [
        ["--negative-prompt", "blur", "--dry-run", "--num-inference-steps", "4"],
        ["--negative_prompt", "blur", "--dry_run", "--num_inference_steps", "4"],
        ["--negative-prompt", "blur", "--dry_run", "--steps", "4"],
    ],
)
def test_hyphens_and_underscores_are_the_same(generate, capsys, spelled):
    assert generate("--json", *spelled) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["negative_prompt"], config["steps"]) == ("blur", 4)


def spoil(model, kind):
    path = model / WEIGHTS
    if kind == "shape":
        state = load_file(path)
        state["proj_out.bias"] = state["proj_out.bias"][:-1].clone()
        save_file(state, path)
    elif kind == "pickle":
        path.rename(path.with_suffix(".bin"))
    else:
        path.write_bytes(path.read_bytes()[:-100])


REFUSED = {
    "no image": ({"image": None}, [], "a start image is missing; --image FILE names one"),
    "missing image": ({"image": "nowhere.png"}, [], "nowhere.png: there is no such image"),
    "corrupt image": ({"image": "corrupt.png"}, [], "corrupt.png: the picture cannot be read"),
    "no picture": ({"image": "letter.png"}, [], "letter.png: not a picture that can be read; PNG, JPEG"),
    "schedule": ({}, ["--schedule", "f16k4_q2_g9"], "error: f16k4_q2_g9\n             ^ expected"),
    "order": ({}, ["--order", "sideways"], "order 'sideways' is unknown; there are: vanilla, inverted"),
    "unservable": ({}, ["--order", "inverted", "--schedule", "f1k1_g9"], "the order inverted cannot serve"),
    "kernel": ({}, ["--schedule", "f16k8_g9"], "no history weights for the kernel k8"),
    "size": ({}, ["--height", "481"], "off the model's grid of 16 pixels; its neighbors are 480 and 496"),
    "length": ({}, ["--seconds", "0"], "seconds: input should be greater than 0, got 0.0"),
    "long": ({}, ["--seconds", "1e6"], "seconds: input should be less than or equal to 86400"),
    "steps": ({}, ["--steps", "0"], "steps: input should be greater than or equal to 1, got 0"),
    "model": ({"model": "sora"}, [], "unknown model 'sora'"),
    "misfit": ({"model": "shape"}, [], "proj_out.bias is"),
    "pickle": ({"model": "pickle"}, [], "a pickle can run any program and is not loaded"),
    "a pickle itself": ({"model": "weights.pt"}, [], "weights.pt: a pickle can run any program and is not loaded"),
    "cut short": ({"model": "cut"}, [], "is cut short or is not a safetensors file"),
    "lora": ({}, ["--lora", "other.safetensors"], "other.safetensors: none of its 2 tensors fits"),
    "second lora": ({}, ["--lora", "weights.pt", "--lora", "other.safetensors"], "weights.pt: a LoRA is read"),
    "lora network": ({}, ["--lora", "A.safetensors@up"], "A.safetensors@up: expected FILE, FILE:WEIGHT, and behind"),
    "lora weight": ({}, ["--lora", "other.safetensors:nan"], "should be a finite number"),
    "lora pickle": ({}, ["--lora", "weights.pt"], "weights.pt: a LoRA is read from safetensors only"),
    "profile": ({}, ["--profile", "sideways"], "profile 'sideways': there is no such profile"),
    "package": (
        {},
        ["--storage", "int8:torchao"],
        "pip install 'longtake[torchao]', or leave",
    ),
    "kernel of another device": ({}, ["--attention", "flash"], "there are auto, native, math, tiled"),
    "kernel of attention": ({}, ["--attention", "sage"], "sage attention is not installed"),
    "cache": ({}, ["--cache", "teacache"], "teacache was fitted to HunyuanVideo and FramePack"),
    "no folder": ({}, ["--output", "nowhere/a.mp4"], "nowhere: there is no such folder to write a.mp4 into"),
    "folder": ({}, ["--output", "."], ". is a folder; name a file"),
    "root": ({}, ["--output", "/"], "/ is a folder; name a file"),
    "no place": ({}, ["--output", "/proc/a.mp4", "--run-dir", "run"], "/proc/a.mp4 cannot be written"),
    "long name": ({}, ["--output", "a" * 300 + ".mp4"], "a.mp4 cannot be written (File name too long)"),
    "format": ({}, ["--output", "a.avi"], "a.avi: the video is written as MP4; name it a.mp4"),
    "run folder": ({}, ["--run-dir", "letter.png/run"], "the run cannot be written"),
    "other files": ({}, ["--run-dir", "."], "holds other files"),
    "device": ({}, ["--device", "cuda:99"], "there is no device 'cuda:99' here; there are: cpu"),
    "no video": ({}, ["--from", "nowhere.mp4"], "nowhere.mp4: there is no such video"),
    "no request": ({}, ["--from", "start.png"], "start.png: no request of longtake is in its metadata"),
    "a letter": ({}, ["--from", "letter.mp4"], "letter.mp4: not a video that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_its_reason_and_nothing_is_written(
    generate, there, tiny_backbone_folder, capsys, monkeypatch, name
):
    (there / "letter.png").write_text("a letter")
    (there / "letter.mp4").write_text("a letter")
    whole = (there / "start.png").read_bytes()
    (there / "corrupt.png").write_bytes(whole[: len(whole) // 2])
    (there / "weights.pt").write_bytes(b"\x80\x04")
    save_file(
        {"unet.mid.lora_A.weight": torch.ones(2, 8), "unet.mid.lora_B.weight": torch.ones(8, 2)},
        there / "other.safetensors",
    )
    monkeypatch.setitem(sys.modules, "torchao", None)
    changes, options, said = REFUSED[name]
    if changes.get("model") in ("shape", "pickle", "cut"):
        spoil(shutil.copytree(tiny_backbone_folder, there / changes["model"]), changes["model"])
    before = files(there)
    assert generate(*options, **changes) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert files(there) == before


@pytest.mark.parametrize("comment", ["", "a holiday", "[1, 2]", "3", "null", '"text"'])
def test_a_video_without_a_request_cannot_be_repeated(there, capsys, comment):
    from longtake.media import write_segment, write_video

    segment = write_segment(np.zeros((2, 32, 48, 3), np.uint8), there / "s.mp4", 0, 12.0)
    write_video([segment], there / "a.mp4", comment)
    assert main(["generate", "--from", "a.mp4", "--image", "start.png"]) == 2
    assert capsys.readouterr().err == "error: a.mp4: no request of longtake is in its metadata\n"


def test_a_request_with_unknown_keys_cannot_be_repeated(there, capsys):
    from longtake.media import write_segment, write_video

    segment = write_segment(np.zeros((2, 32, 48, 3), np.uint8), there / "s.mp4", 0, 12.0)
    write_video([segment], there / "a.mp4", json.dumps({"image": "start.png", "magic": 3}))
    assert main(["generate", "--from", "a.mp4", "--dry-run"]) == 2
    assert "magic: extra inputs are not permitted, got 3" in capsys.readouterr().err


@pytest.mark.parametrize("example", ["0", "99"])
def test_an_example_that_is_not_there_is_refused(there, capsys, example):
    assert main(["demo", "--example", example]) == 2
    assert f"error: there is no example {example}; there are 1 to" in capsys.readouterr().err
    assert sorted(files(there)) == ["start.png"]


def test_the_module_is_the_command():
    """Messages go to stderr, and the exit code reaches the shell; without torch, so at once."""
    command = [sys.executable, "-m", "longtake"]
    done = subprocess.run([*command, "fly"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no verb 'fly'")
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("longtake: long videos, section by section.")


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `longtake show ... | head -1`, with a pipe that nobody reads."""
    script = "import sys; from longtake.cli import main; sys.exit(main(sys.argv[1:]))"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", script, "show", "td_f16k4f2k2f1k1_g9", "--seconds", "60"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_loads_no_torch():
    script = "import sys; from longtake.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
