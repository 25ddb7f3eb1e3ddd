import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from longtake.errors import InputError, LongtakeError, ModelError, OutputError, PlanError, RunError, ScheduleError
from longtake.pipeline import generate, preflight
from longtake.pipeline.preflight import fingerprint_of


@pytest.fixture
def model(tiny_backbone_folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(tiny_backbone_folder, tmp_path / "model")


def test_preflight_says_what_a_request_comes_to(asked, tmp_path):
    checked = preflight(asked(), tmp_path / "a.mp4", tmp_path / "a.run")
    assert (checked.sections, checked.images) == (4, 145)
    assert checked.seconds == pytest.approx(145 / 12)
    assert checked.section_tokens == 9 * 2 * 3  # the latents of 32 x 48 pixels are 4 x 6, patches are 2 x 2
    assert checked.context_tokens == 4 + 2 + 6 + 6  # f16k4, f2k2, f1k1 and the anchor, each padded to whole kernels
    assert checked.config.order == "vanilla"
    assert list(tmp_path.iterdir()) == []


def test_the_disk_that_is_needed_is_enough(asked, undisturbed, tmp_path):
    need = preflight(undisturbed.request, tmp_path / "a.mp4", tmp_path / "a.run").disk_bytes
    latents = sum(len(c) for name, c in undisturbed.contents.items() if "sections" in name)
    assert latents * 0.5 < need  # the files of so tiny a model are mostly headers
    assert need < 100 * latents


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"image": "nowhere.png"}, InputError, "nowhere.png: there is no such image"),
        ({"model": "sora"}, ModelError, "unknown model 'sora'"),
        ({"order": "sideways"}, PlanError, "order 'sideways' is unknown"),
        ({"order": "inverted", "schedule": "f1k1_g9"}, PlanError, "the order inverted cannot serve"),
        ({"schedule": "f16k4_q2_g9"}, ScheduleError, "\\^ expected"),
        ({"schedule": "f16k8_g9"}, ModelError, "no history weights for the kernel k8 .* it has k1, k2, k4"),
        ({"height": 33}, InputError, "its neighbors are 32 and 48"),
        ({"height": 8192, "width": 8192, "seconds": 600, "scale": 8}, OutputError, "MiB are needed"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(asked, tmp_path, changes, error, said):
    with pytest.raises(error, match=said):
        next(generate(asked(**changes), tmp_path / "a.mp4", tmp_path / "a.run"))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused(asked, tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    before = sorted(tmp_path.iterdir())
    for output, said in (
        (tmp_path / "folder.mp4", "is a folder; name a file, such as"),
        (tmp_path / "a.avi", "the video is written as MP4; name it a.mp4"),
        (tmp_path / "a", "name it a.mp4"),
        (tmp_path / "nowhere" / "a.mp4", "nowhere: there is no such folder to write a.mp4 into"),
    ):
        with pytest.raises(OutputError, match=said):
            next(generate(asked(), output, tmp_path / "a.run"))
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_without_permission_is_refused(asked):
    if os.access("/proc/self", os.W_OK) or not os.path.isdir("/proc/self"):
        pytest.skip("this system has no folder that nobody may write into")
    from pathlib import Path

    with pytest.raises(OutputError, match="cannot be written"):
        next(generate(asked(), Path("/proc/self/a.mp4"), Path("/proc/self/a.run")))


def test_a_run_folder_that_cannot_be_written_is_refused_and_left_alone(asked, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="the run cannot be written"):
        next(generate(asked(), tmp_path / "a.mp4", tmp_path / "file" / "a.run"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "mine")]


def test_a_folder_with_a_run_is_not_begun_again(asked, undisturbed, tmp_path):
    run = shutil.copytree(undisturbed.folder, tmp_path / "a.run")
    with pytest.raises(RunError, match=r"holds a run already: go on with `longtake resume .*a\.run`"):
        next(generate(undisturbed.request, tmp_path / "a.mp4", run))
    with pytest.raises(RunError, match="holds a run already"):
        preflight(undisturbed.request, tmp_path / "a.mp4", run)


def test_a_folder_with_other_files_does_not_become_a_run(asked, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "start.png").write_text("mine")
    (photos / "aunt.png").write_text("mine too")
    with pytest.raises(RunError, match=r"photos holds other files, such as aunt\.png; name a folder"):
        next(generate(asked(), tmp_path / "a.mp4", photos))
    assert (photos / "start.png").read_text() == "mine"


def test_sections_of_a_run_without_its_config_are_not_taken_for_new_ones(asked, undisturbed, tmp_path):
    run = shutil.copytree(undisturbed.folder, tmp_path / "a.run")
    (run / "config.json").unlink()
    with pytest.raises(RunError, match="holds other files"):
        next(generate(asked(seed=5), tmp_path / "a.mp4", run))


def spoil_shape(model):
    path = model / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["proj_out.bias"] = state["proj_out.bias"][:-1].clone()
    save_file(state, path)


def spoil_history(model):
    path = model / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["history_patch_embed.proj.k4h8w8.bias"]
    save_file(state, path)


def spoil_widths(model):
    path = model / "vae" / "config.json"
    other = json.loads(path.read_text())
    path.write_text(json.dumps(other | {"z_dim": 8, "latents_mean": [0.0] * 8, "latents_std": [1.0] * 8}))


def make_pickle(model):
    path = model / "transformer" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))


def cut(model):
    path = model / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


SPOILED = [
    (spoil_shape, "tensor proj_out.bias is .* in the file, but config.json asks for"),
    (spoil_history, "the weights lack history_patch_embed.proj.k4h8w8.bias"),
    (spoil_widths, "in the file, but config.json asks for"),
    (make_pickle, "a pickle can run any program and is not loaded"),
    (cut, "is cut short or is not a safetensors file"),
    (lambda model: shutil.rmtree(model / "vae"), "the model lacks vae/"),
    (lambda model: (model / "transformer" / "config.json").write_text("{"), "cannot be read as JSON"),
    (lambda model: (model / "longtake.json").write_text('{"fps": 0}'), "fps: input should be greater than 0"),
    (lambda model: (model / "tokenizer" / "tokenizer.json").unlink(), "tokenizer.json is missing"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILED)
def test_a_model_that_is_not_whole_is_refused_before_anything_is_written(asked, model, tmp_path, spoil, said):
    spoil(model)
    with pytest.raises(ModelError, match=f"(?i){said}"):
        next(generate(asked(model=str(model)), tmp_path / "a.mp4", tmp_path / "a.run"))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_fingerprint_follows_every_byte_of_a_small_model(model):
    seen = {fingerprint_of(str(model))}
    assert fingerprint_of(str(model)) in seen
    for name in ("longtake.json", "transformer/config.json"):
        (model / name).write_text((model / name).read_text() + "\n")
        seen.add(fingerprint_of(str(model)))
    for path in sorted(model.rglob("*.safetensors")):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        seen.add(fingerprint_of(str(model)))
    assert len(seen) == 6


def test_a_fingerprint_samples_the_whole_length_of_a_large_file(model):
    """Training changes all weights, but neither the size of the file nor its header."""
    path = model / "transformer" / "diffusion_pytorch_model.safetensors"
    size = 40 << 20
    path.write_bytes(bytes(size))
    first = fingerprint_of(str(model))
    path.write_bytes(bytes(size // 2) + b"\1" * (size // 2))
    assert fingerprint_of(str(model)) != first


def test_the_name_of_a_model_does_not_enter_its_fingerprint(model, tiny_backbone_folder):
    assert fingerprint_of(str(model)) == fingerprint_of(str(tiny_backbone_folder))


def test_every_refusal_is_a_longtake_error():
    assert all(issubclass(e, LongtakeError) for e in (InputError, ModelError, OutputError, PlanError, RunError))
