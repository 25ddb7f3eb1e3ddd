import json

import pytest
from PIL import Image

from longtake.cli import main


@pytest.fixture
def dry_run(tiny_backbone_folder, tmp_path, capsys):
    """The config that options lead to, or what is said of them."""

    def run(*options):
        image = tmp_path / "start.png"
        Image.new("RGB", (48, 32)).save(image)
        to = ["--image", str(image), "--model", str(tiny_backbone_folder), "--output", str(tmp_path / "a.mp4")]
        code = main(["generate", *to, "--dry-run", "--json", *options])
        said = capsys.readouterr()
        return said.err if code else json.loads(said.out)["config"]

    return run


def test_how_history_is_read_can_be_said(dry_run):
    config = dry_run(
        "--importance", "hybrid", "--importance-time", "0.5", "--importance-estimate", "first_step",
        "--importance-compare", "mean", "--history-sigma", "0.1", "--history-guidance", "1.5",
        "--history-without", "0.7",
    )  # fmt: skip
    names = ("importance", "importance_time", "importance_estimate", "importance_compare")
    assert [config[name] for name in names] == ["hybrid", 0.5, "first_step", "mean"]
    assert [config[f"history_{name}"] for name in ("sigma", "guidance", "without")] == [0.1, 1.5, 0.7]


def test_history_guidance_can_lead_away_from_dropped_frames(dry_run):
    assert dry_run("--history-guidance", "2", "--history-without", "drop")["history_without"] == "drop"


def test_by_default_history_is_read_by_time_and_as_the_model_wants_it(dry_run):
    config = dry_run()
    assert (config["importance"], config["history_sigma"], config["history_guidance"]) == ("time", 0.0, 1.0)


def test_a_level_above_1_is_refused(dry_run):
    assert "less than or equal to 1" in dry_run("--history-without", "3")
