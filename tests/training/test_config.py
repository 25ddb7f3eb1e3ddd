import pytest
from pydantic import ValidationError

from longtake.errors import ConfigError
from longtake.training.config import PRESETS, UseConfig, read_config, resolve_config, write_config


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
