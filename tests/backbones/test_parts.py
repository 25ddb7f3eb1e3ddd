import json
import shutil

import pytest
import torch
from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.utils import filter_repo_objects

from longtake.backbones import MODELS, fetch, find_model, find_parts, inspect_model, load_backbone, manifest_of
from longtake.backbones.fetching import patterns_of
from longtake.backbones.outline import Loaded, settings_of
from longtake.backbones.registry import locate
from longtake.errors import ModelError, OutputError

REPO = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
ROW = MODELS["wan2.1-t2v-1.3b"]
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A hub's cache, empty, that huggingface_hub takes for its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def snapshot(home, cache_in_hub, tiny_backbone_folder):
    """The tiny model as a snapshot of the smallest Wan."""
    return cache_in_hub(home, REPO, tiny_backbone_folder, "")


def test_nothing_is_here_at_first(home):
    found = find_parts(ROW)
    assert [one.part.name for one in found.absent] == ["transformer", "vae", "text_encoder", "tokenizer"]
    assert found.download_bytes == ROW.bytes
    assert f"{REPO}/vae is not in the hub's cache" in [one.missing for one in found.absent]
    assert not home.exists()  # and looking made nothing


def test_a_snapshot_in_the_cache_is_found(home, snapshot):
    found = find_parts(ROW)
    assert not found.absent
    assert found.download_bytes == 0
    assert found.path_of("transformer") == snapshot / "transformer"
    assert {one.commit for one in found.parts} == {snapshot.name}
    on_disk = {path for path in snapshot.rglob("*") if path.is_file()}
    assert {path for one in found.parts for path in one.files} <= on_disk


def test_the_cache_can_be_elsewhere(home, snapshot, tmp_path):
    assert find_parts(ROW, home=tmp_path / "other").absent
    assert not find_parts(ROW, home=home).absent


def test_a_model_of_one_repository_is_loaded_by_its_name(snapshot, tiny_backbone_folder):
    assert find_model(ROW.name) == snapshot
    ours, theirs = load_backbone(ROW.name).transformer, load_backbone(tiny_backbone_folder).transformer
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_longtake_json_is_of_the_folder_that_is_the_model_not_of_where_a_part_lies(snapshot, tmp_path):
    other = shutil.copytree(snapshot, tmp_path / "other")
    for steps, folder in ((5, snapshot), (7, other), (9, other / "transformer")):
        (folder / "longtake.json").write_text(json.dumps({"steps": steps}))
    (other / "codebooks.safetensors").write_bytes(b"of another codec")
    file = other / TRANSFORMER
    for name, steps in ((ROW.name, 5), (str(snapshot), 5), (str(other), 7)):
        assert settings_of(locate(name)).steps == steps
        assert settings_of(locate(name, {"transformer": file})).steps == steps
    assert load_backbone(ROW.name, how=Loaded(places={"transformer": file.parent})).settings.steps == 5
    assert inspect_model(ROW.name, {"transformer": file.parent}).codebooks == ()
    everything = {part.name: other / part.name for part in ROW.parts}
    assert settings_of(locate(ROW.name, everything)) == ROW.settings
    assert settings_of(locate(ROW.name, {REPO: other})).steps == 7  # all of the model, as its repository has it


def test_a_model_that_is_not_here_says_how_much_it_would_be_and_how_to_get_it(home):
    with pytest.raises(ModelError, match=r"(?s)about 28.9 GB: longtake models wan2.1-t2v-1.3b --fetch"):
        load_backbone(ROW.name)


def test_a_model_of_several_repositories_is_not_a_folder(home, cache_in_hub, tmp_path, tiny_backbone_folder):
    part = tmp_path / "part"
    part.mkdir()
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        (part / name).write_text("{}")
    for name in ("diffusion_pytorch_model", "model"):
        (part / f"{name}.safetensors").write_bytes(b"")
    row = MODELS["framepack-i2v"]
    for one in row.parts:
        cache_in_hub(home, one.repo, part, one.folder)
    assert not find_parts(row).absent
    with pytest.raises(ModelError, match=r"parts of lllyasviel/FramePackI2V_HY, .* which are not one folder"):
        find_model(row.name)


def test_a_snapshot_is_laid_out_as_huggingface_hub_reads_it(home, snapshot):
    report = scan_cache_dir(home)
    assert not report.warnings
    (repo,) = report.repos
    (revision,) = repo.revisions
    assert (repo.repo_id, revision.commit_hash, revision.refs) == (REPO, snapshot.name, frozenset({"main"}))


def test_the_manifest_names_commit_sizes_and_the_hubs_digests(home, snapshot):
    manifest = manifest_of(find_parts(ROW))
    assert manifest.model == ROW.name
    assert {part.source for part in manifest.parts} == {f"{REPO}@{snapshot.name}"}
    (repo,) = scan_cache_dir(home).repos
    (revision,) = repo.revisions
    known = {file.blob_path.name: file.size_on_disk for file in revision.files}
    for part in manifest.parts:
        assert part.files
        for file in part.files:
            assert known[file.digest] == file.bytes


def test_files_of_ones_own_are_told_apart_by_samples(tiny_backbone_folder, tmp_path):
    folder = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    places = {REPO: folder}
    first = manifest_of(find_parts(ROW, places=places))
    assert first == manifest_of(find_parts(ROW, places=places))
    content = bytearray((folder / TRANSFORMER).read_bytes())
    content[-1] ^= 1
    (folder / TRANSFORMER).write_bytes(content)
    second = manifest_of(find_parts(ROW, places=places))
    changed = [a.name for a, b in zip(first.parts, second.parts, strict=True) if a != b]
    assert changed == ["transformer"]


def test_a_manifest_of_what_is_not_whole_is_refused(home):
    with pytest.raises(ModelError, match=r"its transformer: .* is not in the hub's cache"):
        manifest_of(find_parts(ROW))


def test_missing_shards_are_named(snapshot):
    (snapshot / TRANSFORMER).unlink()
    index = {"weight_map": {"a": "part-1-of-2.safetensors", "b": "part-2-of-2.safetensors"}}
    (snapshot / f"{TRANSFORMER}.index.json").write_text(json.dumps(index))
    (snapshot / "transformer" / "part-1-of-2.safetensors").write_bytes(b"")
    (broken,) = find_parts(ROW).absent
    assert "part-2-of-2.safetensors missing of the 2 files" in broken.missing
    with pytest.raises(ModelError, match="part-2-of-2"):
        find_parts(ROW).path_of("transformer")


def test_a_file_whose_blob_is_gone_is_missing(snapshot):
    (snapshot / TRANSFORMER).resolve().unlink()
    (broken,) = find_parts(ROW).absent
    assert broken.missing.endswith("diffusion_pytorch_model.safetensors is missing")


def test_pickles_are_no_weights(snapshot):
    (snapshot / TRANSFORMER).rename(snapshot / "transformer" / "diffusion_pytorch_model.bin")
    (broken,) = find_parts(ROW).absent
    assert "a pickle can run any program" in broken.missing


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_a_part_can_be_a_single_file(home, snapshot, tmp_path, suffix):
    file = tmp_path / f"mine{suffix}"
    file.write_bytes(b"1234")
    found = find_parts(ROW, places={"transformer": file})
    assert not found.absent
    assert found.path_of("transformer") == file
    (entry,) = manifest_of(found).parts[0].files
    assert (entry.name, entry.bytes) == (file.name, 4)


def test_a_part_can_be_a_folder(home, snapshot, tiny_backbone_folder):
    found = find_parts(ROW, places={"vae": tiny_backbone_folder / "vae"})
    assert found.path_of("vae") == tiny_backbone_folder / "vae"
    assert found.path_of("transformer") == snapshot / "transformer"


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("transformer", "mine.ckpt", "a pickle can run any program"),
        ("transformer", "mine.zip", "expected a folder, a .safetensors or a .gguf file"),
        ("tokenizer", "mine.safetensors", "cannot be tokenizer: expected a folder of diffusers layout"),
        ("vae", "mine.safetensors", "cannot be vae: expected a folder of diffusers layout"),
        ("transformer", None, "does not exist"),
        ("unet", "mine.safetensors", "has no part 'unet'; it has transformer, vae"),
    ],
)
def test_places_that_cannot_be_are_refused(home, tmp_path, name, file, message):
    path = tmp_path / (file or "nowhere.safetensors")
    if file:
        path.write_bytes(b"")
    with pytest.raises(ModelError, match=message):
        find_parts(ROW, places={name: path})


def test_what_is_here_is_not_fetched_again(snapshot):
    said = []
    assert not fetch(ROW, said.append).absent
    assert said == []


def test_nothing_is_fetched_offline(home, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"28.9 GB would be fetched, but HF_HUB_OFFLINE is set"):
        fetch(ROW, pytest.fail)


def test_a_disk_without_room_is_found_out_first(home, monkeypatch):
    free = shutil.disk_usage(home.parent)._replace(free=5 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(OutputError, match=r"hub: 5.0 GB are free, 28.9 GB are to be fetched; HF_HOME"):
        fetch(ROW, pytest.fail)


def test_what_is_fetched_is_what_the_parts_are_and_no_pickle():
    listing = [
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model-00001-of-00005.safetensors",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/pytorch_model.bin",
        "tokenizer/spiece.model",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    chosen = list(filter_repo_objects(listing, allow_patterns=patterns_of(list(ROW.parts))))
    assert set(listing) - set(chosen) == {
        "README.md",
        "scheduler/scheduler_config.json",
        "text_encoder/pytorch_model.bin",
    }
    only = list(filter_repo_objects(listing, allow_patterns=patterns_of([ROW.parts[1]])))
    assert only == ["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    root = ["README.md", "config.json", "diffusion_pytorch_model-00001-of-00003.safetensors"]
    part = MODELS["framepack-i2v"].parts[0]
    assert list(filter_repo_objects(root, allow_patterns=patterns_of([part]))) == root[1:]
