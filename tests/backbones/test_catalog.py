import json

import pytest
import torch

from longtake.backbones import MODELS, BackboneSettings, find_model, find_row, load_settings
from longtake.backbones.hunyuan.buckets import BUCKETS
from longtake.backbones.parts import stem_of
from longtake.errors import ModelError
from longtake.plan import default_order, make_plan
from longtake.schedule import parse

NAMES = [
    "embedded",
    "framepack-i2v",
    "framepack-f1",
    "helios-base",
    "helios-mid",
    "helios-distilled",
    "hunyuanvideo",
    "wan2.1-t2v-1.3b",
    "wan2.1-t2v-14b",
    "wan2.1-i2v-14b",
    "wan2.2-ti2v-5b",
    "wan2.2-a14b",
]
rows = pytest.mark.parametrize("row", MODELS.values(), ids=list(MODELS))

# The configs of the published networks, as the conversion scripts of diffusers write them.
CONFIGS = {
    "framepack-i2v": {"has_clean_x_embedder": True, "has_image_proj": True, "image_proj_dim": 1152},
    "framepack-f1": {"has_clean_x_embedder": True, "has_image_proj": True, "image_proj_dim": 1152},
    "helios-base": {},
    "helios-mid": {},
    "helios-distilled": {},
    "hunyuanvideo": {},
    "wan2.1-t2v-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-t2v-14b": {},
    "wan2.1-i2v-14b": {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120},
    "wan2.2-ti2v-5b": {
        "num_attention_heads": 24,
        "ffn_dim": 14336,
        "num_layers": 30,
        "in_channels": 48,
        "out_channels": 48,
    },
    "wan2.2-a14b": {},
}


def test_the_models_are_known_by_these_names():
    assert list(MODELS) == NAMES
    assert all(name == row.name for name, row in MODELS.items())


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ModelError, match=r"unknown model 'framepack'; .* embedded, framepack-i2v"):
        find_row("framepack")


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_network(name):
    """At full size, on the meta device."""
    import diffusers

    with torch.device("meta"):
        network = getattr(diffusers, MODELS[name].network)(**CONFIGS[name])
    assert MODELS[name].parts[0].parameters == sum(parameter.numel() for parameter in network.parameters())


def test_the_sums_are_those_of_the_hubs_listings():
    """25.7 GB of FramePack's transformer, 41.9 GB of HunyuanVideo, 5.68 GB of the smallest Wan's transformer."""
    assert MODELS["framepack-i2v"].parts[0].bytes == pytest.approx(25.75e9, rel=1e-3)
    assert MODELS["hunyuanvideo"].bytes == pytest.approx(41.9e9, rel=1e-3)
    assert MODELS["wan2.1-t2v-1.3b"].parts[0].bytes == pytest.approx(5.68e9, rel=1e-3)


def test_the_embedded_row_says_what_its_folder_says():
    row, folder = MODELS["embedded"], find_model("embedded")
    assert row.settings == load_settings(folder)
    for part in row.parts:
        if stem := stem_of(part):
            size = (folder / part.folder / f"{stem}.safetensors").stat().st_size
            assert part.bytes == pytest.approx(size, rel=0.01)  # names and shapes are in the file, too
    assert json.loads((folder / "transformer" / "config.json").read_text())["_class_name"] == row.network


@rows
def test_the_order_of_a_model_can_plan_its_schedule(row):
    settings = row.settings
    schedule = parse(settings.schedules[settings.order])
    plan = make_plan(schedule, 1 + 4 * schedule.generated, settings.order, settings.gaps, settings.missing)
    assert len(plan.sections) == 4
    if row.use == "ready" and row.family != "wan":
        assert settings.order == default_order(schedule)


@rows
def test_the_size_of_a_model_is_one_of_its_buckets(row):
    settings = row.settings
    assert (settings.height, settings.width) in [(bucket.height, bucket.width) for bucket in row.buckets]


@rows
def test_a_row_says_what_a_model_is_for_and_under_which_licence(row):
    assert row.sentence.endswith(".")
    assert row.licence
    assert all(part.repo for part in row.parts) != bool(row.assets)
    names = [part.name for part in row.parts]
    assert len(set(names)) == len(names)
    assert names[0] == "transformer"


@rows
def test_the_settings_of_a_row_can_be_a_longtake_json(row):
    assert BackboneSettings.model_validate_json(row.settings.model_dump_json()) == row.settings


def test_framepack_takes_what_it_lacks_from_two_other_repositories():
    for name in ("framepack-i2v", "framepack-f1"):
        _, *others = MODELS[name].repos
        assert others == ["hunyuanvideo-community/HunyuanVideo", "lllyasviel/flux_redux_bfl"]
        assert MODELS[name].buckets == BUCKETS


# Official shifts of windows of 1 to 5 latents at 1520 tokens a frame; 7 from 8798 tokens on.
@pytest.mark.parametrize(("frames", "shift"), [(1, 2.04), (2, 2.64), (3, 3.42), (4, 4.42), (5, 5.72), (6, 7), (9, 7)])
def test_framepacks_shift_follows_the_noisy_tokens(frames, shift):
    assert round(MODELS["framepack-i2v"].settings.shift_at(1520 * frames, 640 * 608), 2) == shift


def test_helios_is_told_the_layout_and_the_sampling_of_its_published_pipelines():
    rows = [MODELS[f"helios-{kind}"].settings for kind in ("base", "mid", "distilled")]
    assert [(row.steps, row.solver, row.guidance) for row in rows] == [
        (50, "unipc_flow", 5.0),
        (60, "unipc_flow", 5.0),
        (6, "dmd", 1.0),
    ]
    assert [round(row.shift_at(8640, 384 * 640), 2) for row in rows] == [6.82, 6.82, 1.92]
    assert {(row.history_time, row.missing, row.gaps, row.schedules["vanilla"]) for row in rows} == {
        ("clean", "zeros", "clamped", "td_f1k1_x_f16k4f2k2f1k1_g9")
    }


def test_every_bucket_of_framepack_has_the_capped_shift_at_nine_frames():
    row = MODELS["framepack-i2v"]
    assert {row.settings.shift_at(9 * b.height * b.width // 256, b.height * b.width) for b in row.buckets} == {7.0}


def test_two_transformers_share_the_noise_levels_at_a_boundary():
    both = [row for row in MODELS.values() if "transformer_2" in [part.name for part in row.parts]]
    assert [row.name for row in both] == ["wan2.2-a14b"]
    assert [row for row in MODELS.values() if row.settings.boundary] == both


# As diffusers' pipelines name it for Wan 2.1; Wan 2.2 has one for all sizes, in its publisher's configs.
@pytest.mark.parametrize(
    ("name", "height", "width", "shift"),
    [
        *(("wan2.1-t2v-1.3b", *size) for size in ((480, 832, 3.0), (832, 480, 3.0), (720, 1280, 5.0))),
        *(("wan2.1-t2v-14b", *size) for size in ((480, 832, 3.0), (720, 1280, 5.0), (1280, 720, 5.0))),
        *(("wan2.1-i2v-14b", *size) for size in ((480, 832, 3.0), (720, 1280, 5.0))),
        *(("wan2.2-ti2v-5b", *size) for size in ((480, 832, 5.0), (704, 1280, 5.0))),
        *(("wan2.2-a14b", *size) for size in ((480, 832, 12.0), (720, 1280, 12.0))),
    ],
)
def test_a_wans_shift_follows_the_size(name, height, width, shift):
    for frames in (1, 9):  # however many are made together
        tokens = frames * (height // 16) * (width // 16)
        assert MODELS[name].settings.shift_at(tokens, height * width) == shift
