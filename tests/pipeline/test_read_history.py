import pytest
import torch

from longtake.pipeline import Run, SectionDone, generate, make

LONG = "td_f1k1_x_f4k4f2k2f1k1_g3"  # twelve sections in twelve seconds
READINGS = {
    "noise": {"history_sigma": 0.3},
    "history guidance": {"history_guidance": 2.0, "history_without": 0.7},
    "both guidances": {"history_guidance": 2.0, "guidance": 3.0},
    "similarity": {"importance": "similarity"},
    "hybrid": {"importance": "hybrid", "importance_time": 0.2, "importance_estimate": "first_step"},
}


def made(wanted, folder, backbone):
    folder.mkdir(exist_ok=True)
    events = list(generate(wanted, folder / "a.mp4", folder / "run", backbone))
    return [event.latents for event in events if isinstance(event, SectionDone)]


@pytest.fixture(scope="module")
def by_default(asked, backbone, tmp_path_factory):
    return made(asked(schedule=LONG), tmp_path_factory.mktemp("default"), backbone)


@pytest.mark.parametrize("name", READINGS)
def test_how_history_is_read_changes_what_is_made_but_not_how_it_begins(asked, backbone, by_default, tmp_path, name):
    if name == "both guidances":
        by_default = made(asked(schedule=LONG, guidance=3.0), tmp_path / "prompt", backbone)
    changed = made(asked(schedule=LONG, **READINGS[name]), tmp_path, backbone)
    assert torch.equal(changed[0], by_default[0])  # there is only the start image to see
    assert not torch.equal(changed[-1], by_default[-1])


@pytest.mark.parametrize("name", READINGS)
def test_a_resumed_run_reads_as_before_to_the_bit(asked, backbone, tmp_path, name, contents):
    wanted = asked(schedule=LONG, **READINGS[name])
    made(wanted, tmp_path, backbone)
    whole, run = contents(tmp_path / "run"), Run.open(tmp_path / "run")
    for index in range(7, 12):
        run.section_path(index).unlink()
    list(make(run, tmp_path / "a.mp4", backbone))
    assert contents(tmp_path / "run") == whole
