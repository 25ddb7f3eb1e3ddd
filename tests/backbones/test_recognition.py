"""A folder in plain diffusers layout, without longtake.json, is used as the published model whose networks it has."""

import json
import shutil

import pytest

from longtake.backbones import MODELS, BackboneSettings, load_backbone, published
from longtake.backbones.blueprints import blueprint_of, published_codec, published_transformer
from longtake.backbones.outline import settings_of
from longtake.backbones.registry import locate
from longtake.errors import ModelError

PIPELINES = {
    "wan2.1-t2v-1.3b": "WanPipeline",
    "wan2.1-t2v-14b": "WanPipeline",
    "wan2.2-ti2v-5b": "WanPipeline",
    "wan2.2-a14b": "WanPipeline",
    "wan2.1-i2v-14b": "WanImageToVideoPipeline",
    "hunyuanvideo": "HunyuanVideoPipeline",
    "framepack-i2v": "HunyuanVideoFramepackPipeline",
}


def save_configs(name, folder, **index):
    """The folder that a model is published as, as far as its configs go."""
    row = MODELS[name]
    networks = {"vae": published_codec(row)} | {
        part.name: published_transformer(row) for part in row.parts if part.name.startswith("transformer")
    }
    for part in row.parts:
        (folder / part.name).mkdir(parents=True)
    for part, network in networks.items():
        network.save_config(folder / part)
    second = {"transformer_2": ["diffusers", "WanTransformer3DModel"]} if "transformer_2" in networks else {}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": PIPELINES[name], **second, **index}))
    return folder


def scheduler(folder, **config):
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))


@pytest.fixture
def plain(tiny_backbone_folder, tmp_path):
    """A Wan that nobody published."""
    folder = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    (folder / "longtake.json").unlink()
    return folder


@pytest.mark.parametrize("name", PIPELINES)
def test_a_published_folder_is_used_as_its_name_is(name, tmp_path):
    found = locate(save_configs(name, tmp_path / "any"))
    assert settings_of(found) == MODELS[name].settings
    assert found.row.buckets == MODELS[name].buckets
    assert found.remark == f"its networks are those of {name}, and it is used as that is"


def test_the_user_is_told_which(plain, monkeypatch):
    """As if the smallest Wan had been published at tiny size."""
    for table, part in ((published._TRANSFORMERS, "transformer"), (published._CODECS, "vae")):
        monkeypatch.setitem(table, "wan2.1-t2v-1.3b", json.loads((plain / part / "config.json").read_text()))
    told = "its networks are those of wan2.1-t2v-1.3b, and it is used as that is"
    assert load_backbone(plain).remarks == (told,)
    assert blueprint_of(str(plain)).remark == told
    assert load_backbone(plain).settings == blueprint_of(str(plain)).settings == MODELS["wan2.1-t2v-1.3b"].settings


def test_its_scheduler_is_not_asked_but_its_boundary_is_believed(tmp_path):
    folder = save_configs("wan2.2-a14b", tmp_path / "any", boundary_ratio=0.9)
    scheduler(folder, _class_name="UniPCMultistepScheduler", flow_shift=3.0, prediction_type="flow_prediction")
    assert settings_of(locate(folder)) == MODELS["wan2.2-a14b"].settings.model_copy(update={"boundary": 0.9})


def test_longtake_json_goes_before(tmp_path):
    folder = save_configs("wan2.2-ti2v-5b", tmp_path / "any")
    (folder / "longtake.json").write_text(json.dumps({"fps": 12.0}))
    found = locate(folder)
    assert (settings_of(found), found.row.buckets, found.remark) == (BackboneSettings(fps=12.0), (), "")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("transformer", {"num_layers": 29}),
        ("transformer", {"ffn_dim": 1}),
        ("transformer", {"in_channels": 36}),
        ("transformer", {"pos_embed_seq_len": 514}),
        ("vae", {"z_dim": 48}),
    ],
)
def test_networks_of_other_sizes_are_not_recognized(part, change, tmp_path):
    folder = save_configs("wan2.1-t2v-1.3b", tmp_path / "any")
    config = json.loads((folder / part / "config.json").read_text())
    (folder / part / "config.json").write_text(json.dumps(config | change))
    found = locate(folder)
    assert (settings_of(found), found.row.buckets, found.remark) == (BackboneSettings(), (), "")


def test_a_folder_without_configs_is_not_recognized(tmp_path):
    folder = save_configs("wan2.1-t2v-14b", tmp_path / "any")
    (folder / "transformer" / "config.json").unlink()
    assert locate(folder).remark == ""


def test_a_transformer_that_is_elsewhere_is_recognized_there(tmp_path):
    folder = save_configs("wan2.1-t2v-1.3b", tmp_path / "any")
    other = save_configs("wan2.1-t2v-14b", tmp_path / "other")
    found = locate(folder, {"transformer": other / "transformer"})
    assert settings_of(found) == MODELS["wan2.1-t2v-14b"].settings


@pytest.mark.parametrize(
    ("config", "shift"),
    [
        ({"_class_name": "UniPCMultistepScheduler", "flow_shift": 7, "prediction_type": "flow_prediction"}, 7.0),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.5, "use_dynamic_shifting": False}, 2.5),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.5, "use_dynamic_shifting": True}, 5.0),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, 5.0),
    ],
)
def test_a_wan_that_nobody_published_is_sampled_as_its_scheduler_tells(config, shift, plain):
    scheduler(plain, **config)
    backbone = load_backbone(plain)
    assert backbone.settings == BackboneSettings(shift=shift)
    assert backbone.remarks == ()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"prediction_type": "epsilon"}, "prediction_type 'epsilon': longtake knows 'flow_prediction'"),
        ({"flow_shift": 0}, "a shift of 0: expected a number above 0"),
        ({"shift": "large"}, "a shift of 'large': expected a number above 0"),
    ],
)
def test_a_scheduler_of_another_kind_is_refused(config, says, plain):
    scheduler(plain, **config)
    with pytest.raises(ModelError, match=f"scheduler_config.json: {says}"):
        load_backbone(plain)


def test_a_lone_framepack_transformer_could_be_either(tmp_path):
    published_transformer(MODELS["framepack-f1"]).save_config(tmp_path)
    found = locate(tmp_path)
    assert (found.row, found.folder) == (MODELS["framepack-i2v"], tmp_path)
    assert found.remark.endswith(f"--model framepack-f1 --part transformer={tmp_path}")
