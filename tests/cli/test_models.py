import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants

from longtake.backbones import MODELS
from longtake.cli import main

REPO = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
NAME = "wan2.1-t2v-1.3b"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, and no network to fill it from."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_every_model_is_listed_with_what_it_would_take(home, capsys):
    assert main(["models"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = [line.split(maxsplit=1) for line in said.out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {name for name, _ in lines} == set(MODELS)
    states = dict(lines)
    assert states["embedded"] == "here, 47 MB"
    assert states["framepack-i2v"] == "42.8 GB to fetch"
    assert states["helios-base"].startswith("about ")


def test_a_model_is_shown_with_its_parts(home, capsys):
    assert main(["models", "framepack-f1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("framepack-f1: about 42.8 GB to fetch")
    for word in ("licence", "Tencent Hunyuan", "vanilla, td_f1k1_x_f16k4f2k2f1k1_g9", "unknown", "640 x 608"):
        assert word in shown
    for part in MODELS["framepack-f1"].parts:
        assert f"\n  {part.name} " in shown
    assert "lllyasviel/FramePack_F1_I2V_HY_20250503 is not in the hub's cache" in shown


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("framepack-i2v", "25 (unipc), shift 1.9 at 1,000 noisy tokens, 7.0 at 10,000, guidance 1, distilled 10"),
        ("wan2.1-t2v-14b", "50 (euler), shift 3 at 480 x 832, 5 at 720 x 1280, guidance 5"),
        ("wan2.2-a14b", "40 (euler), shift 12, guidance 4, 3 below sigma 0.875"),
    ],
)
def test_a_model_says_how_it_is_sampled(home, capsys, name, says):
    assert main(["models", name]) == 0
    assert f"\n  steps    {says}\n" in capsys.readouterr().out


def test_what_is_in_the_cache_is_said_to_be_here(home, cache_in_hub, tiny_backbone_folder, capsys):
    snapshot = cache_in_hub(home, REPO, tiny_backbone_folder / "vae", "vae")
    assert main(["models", NAME]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{NAME}: 1 of 4 parts here, 28.4 GB to fetch")
    assert str(snapshot / "vae") in shown


def test_the_list_is_data(home, cache_in_hub, tiny_backbone_folder, capsys):
    snapshot = cache_in_hub(home, REPO, tiny_backbone_folder, "")
    assert main(["models", "--json"]) == 0
    table = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(table) == set(MODELS)
    assert [name for name, row in table.items() if row["here"]] == ["embedded", NAME]
    assert table[NAME]["download_bytes"] == 0
    assert {part["commit"] for part in table[NAME]["parts"]} == {snapshot.name}
    assert table["framepack-i2v"]["download_bytes"] == MODELS["framepack-i2v"].bytes
    assert table["framepack-i2v"]["order"] == "inverted"
    assert table["framepack-i2v"]["parts"][0]["repository"] == "lllyasviel/FramePackI2V_HY"


def test_parts_can_be_elsewhere(home, tiny_backbone_folder, capsys):
    assert main(["models", NAME, "--check", "--place", f"{REPO}={tiny_backbone_folder}"]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}: here, ")


def test_a_check_names_what_is_wrong(home, tiny_backbone_folder, capsys):
    wrong = tiny_backbone_folder / "vae"
    places = [f"{REPO}={tiny_backbone_folder}", f"transformer={wrong}"]
    assert main(["models", NAME, "--check", "--place", *places]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "says AutoencoderKLWan; transformer is read by WanTransformer3DModel" in said.err


def test_the_embedded_model_passes_its_check(home, capsys):
    assert main(["models", "embedded", "--check"]) == 0
    assert capsys.readouterr().out.startswith("embedded: here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["framepack"], "unknown model 'framepack'; the models known by name are embedded, "),
        (["--check"], "expected its NAME"),
        (["--fetch"], "expected its NAME"),
        ([NAME, "--place", "vae"], "--place vae: expected PART=PATH"),
        ([NAME, "--check"], f"its transformer: {REPO}/transformer is not in the hub's cache"),
        ([NAME, "--fetch"], "28.9 GB would be fetched, but HF_HUB_OFFLINE is set"),
    ],
)
def test_what_cannot_be_is_refused(home, capsys, arguments, message):
    assert main(["models", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


def test_the_cache_is_where_the_environment_says(tmp_path, cache_in_hub, tiny_backbone_folder):
    snapshot = cache_in_hub(tmp_path / "hub", REPO, tiny_backbone_folder, "")
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-m", "longtake", "models", NAME, "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    (row,) = json.loads(ran.stdout)
    assert row["here"]
    assert row["parts"][0]["path"] == str(snapshot / "transformer")
