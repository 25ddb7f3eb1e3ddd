import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from longtake.errors import ConfigError
from longtake.training.config import PRESETS, SectionConfig, UseConfig, read_config, resolve_config, write_config


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_survives_its_file(name, tmp_path):
    write_config(PRESETS[name], tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml") == PRESETS[name]


def test_an_unknown_key_is_named(tmp_path):
    (tmp_path / "c.toml").write_text('stage = "codec"\nbatsh = 3\n')
    with pytest.raises(ConfigError, match="batsh"):
        read_config(tmp_path / "c.toml")


def test_a_config_of_another_stage_is_refused(tmp_path):
    write_config(PRESETS["codec/tiny"], tmp_path / "c.toml")
    with pytest.raises(ConfigError, match="not 'pack'"):
        resolve_config("pack", "tiny", tmp_path / "c.toml")


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ConfigError, match="embedded, tiny"):
        resolve_config("pack", "huge", None)


def test_limits_replace_only_what_is_given():
    config = PRESETS["pack/embedded"].with_limits(steps=7, seconds=None, batch=3)
    assert (config.loop.steps, config.loop.seconds, config.batch) == (7, PRESETS["pack/embedded"].loop.seconds, 3)


def test_what_is_left_to_the_model_is_no_setting():
    assert UseConfig().settings == {}
    assert UseConfig(history_time="noisy", history_sigma=0.0, history_without="drop").settings == {
        "history_time": "noisy", "history_sigma": 0.0, "history_without": "drop",
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"history_sigma": 2.0}, {"history_guidance": 0.5}, {"history_without": 0.0}, {"attention": "sparse"}]
)
def test_a_model_is_not_told_what_it_cannot_do(wrong):
    with pytest.raises(ValidationError):
        UseConfig.model_validate(wrong)


def test_a_mix_survives_its_file(tmp_path):
    mix = PRESETS["pack/corrupted"].model_copy(update={"use": UseConfig(history_time="noisy", history_without=0.5)})
    write_config(mix, tmp_path / "c.toml")
    assert read_config(tmp_path / "c.toml") == mix


def test_a_wrong_value_deep_in_a_file_is_named_with_its_reason(tmp_path):
    (tmp_path / "c.toml").write_text('stage = "pack"\n[corruption.recycle]\nshare = 0.5\nupdate = 0.0\n')
    with pytest.raises(ConfigError, match=r"corruption\.recycle: .*the bank would stay empty"):
        read_config(tmp_path / "c.toml")


SCHEDULE = "f1k1_x_f4k2f1k1_g9"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"shares": {"vanilla": 0.0}}, "one above 0"),
        ({"shares": {"vanilla": 1.0, "inverted": -0.1}}, "none below"),
        ({"shares": {"backward": 1.0}}, "'backward' is unknown"),
        ({"schedules": {"vanilla": SCHEDULE}, "key_share": 0.0}, "shares name inverted, which has no schedule"),
        ({"schedules": {"inverted": SCHEDULE}, "shares": {"inverted": 1.0}}, "inverted cannot serve the schedule"),
        ({"schedules": {"vanilla": SCHEDULE}, "shares": {"vanilla": 1.0}}, "key_share is 0.12, but .* lies ahead"),
        ({"shares": {f"backward {SCHEDULE}": 1.0}}, "'backward' is unknown"),
        ({"shares": {"vanilla f2q1_g9": 1.0}}, "expected k<n>"),
        ({"shares": {"vanilla f1k1_g3": 1.0}}, "f1k1_g3 makes 3"),
        ({"shares": {"vanilla f8k8_g9": 1.0}}, "schedules with k8, a kernel that no order"),
        ({"shares": {f"inverted {SCHEDULE}": 1.0}}, "inverted .* cannot serve the schedule"),
    ],
)
def test_a_mix_that_cannot_be_planned_is_refused_with_the_reason(wrong, reason):
    with pytest.raises(ValidationError, match=reason):
        SectionConfig.model_validate(wrong)


def test_the_configs_on_the_page_are_configs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "guides" / "train-the-embedded-model.md").read_text()
    texts = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(texts) == 2
    for text in texts:
        (tmp_path / "c.toml").write_text(text)
        assert read_config(tmp_path / "c.toml").stage == "pack"
