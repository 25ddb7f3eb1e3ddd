import pytest

from longtake.errors import ConfigError
from longtake.training.config import PRESETS, read_config, resolve_config, write_config


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
