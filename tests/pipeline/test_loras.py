"""LoRAs of a request: judged by the headers of their files before anything is loaded, and put where they were meant."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from longtake.backbones import loading
from longtake.backbones.lora import Lora, foresee_loras, outline_lora, read_lora
from longtake.backbones.outline import Loaded
from longtake.backbones.parts import manifest_of
from longtake.backbones.registry import locate
from longtake.cli import main
from longtake.errors import ModelError
from longtake.pipeline import Config, Run, draw_run, generate, preflight

WIDTH = 32  # of the tiny networks
TO_Q = "blocks.0.attn1.to_q"


def lora(path, name=TO_Q, inner=(WIDTH,), rows=WIDTH, **others):
    ones = (1,) * (len(inner) - 1)
    halves = {"lora_A": torch.ones(2, *inner), "lora_B": torch.ones(rows, 2, *ones)}
    save_file({f"{name}.{half}.weight": tensor for half, tensor in halves.items()} | others, path)
    return path


def checked(asked, tmp_path, *loras, **wish):
    return preflight(asked(loras=list(map(str, loras)), **wish), tmp_path / "a.mp4", tmp_path / "run")


@pytest.fixture
def weightless(monkeypatch):
    """Without the functions that load networks."""
    for family in list(loading._LOADERS):
        monkeypatch.delitem(loading._LOADERS, family)


@pytest.mark.usefixtures("weightless")
def test_a_lora_of_another_model_is_refused_before_any_is_loaded(asked, framepack_folder, tmp_path):
    wan = lora(tmp_path / "wan.safetensors")
    hunyuan = lora(tmp_path / "hunyuan.safetensors", "transformer_blocks.0.attn.to_q")
    wide = lora(tmp_path / "wide.safetensors", inner=(64,))
    with pytest.raises(ModelError, match=r"none of its 2 tensors fits.*is a WanTransformer3DModel"):
        checked(asked, tmp_path, hunyuan)
    with pytest.raises(ModelError, match=r"none of its 2 tensors fits.*is a HunyuanVideoFramepackTransformer3DModel"):
        checked(asked, tmp_path, wan, model=str(framepack_folder), order="inverted", solver="unipc")
    with pytest.raises(ModelError, match=r"made for another model: .* of \(32, 64\), where .* has \(32, 32\)"):
        checked(asked, tmp_path, wan, wide)
    with pytest.raises(ModelError, match="there is no such LoRA file"):
        checked(asked, tmp_path, tmp_path / "nowhere.safetensors")


@pytest.mark.usefixtures("weightless")
def test_what_fits_of_a_file_is_told_from_its_header(asked, tmp_path):
    path = lora(tmp_path / "style.safetensors", "time.to_q", **{
        f"{TO_Q}.lora_A.weight": torch.zeros(2, WIDTH), f"{TO_Q}.lora_B.weight": torch.zeros(WIDTH, 2),
        f"{TO_Q}.alpha": torch.tensor(1.0)})  # fmt: skip
    (report,) = checked(asked, tmp_path, f"{path}:0.5").loras
    assert str(report).splitlines() == [
        "style.safetensors at 0.5 (Wan, diffusers' names): 3 of 5 tensors have a place",
        "  2 have no place in this model: time.to_q.lora_A.weight, time.to_q.lora_B.weight",
    ]


@pytest.mark.usefixtures("weightless")
def test_a_dry_run_says_what_fits(picture, tiny_backbone_folder, tmp_path, capsys):
    path = lora(tmp_path / "style.safetensors")
    asked = ["--image", str(picture), "--model", str(tiny_backbone_folder), "--output", str(tmp_path / "a.mp4")]
    assert main(["generate", *asked, "--lora", str(path), "--dry-run"]) == 0
    assert "style.safetensors at 1 (Wan, diffusers' names): 2 of 2 tensors have a place\n" in capsys.readouterr().out
    assert main(["generate", *asked, "--lora", str(path), "--dry-run", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["loras"]
    assert (report["foreseen"], len(report["matched"])) == (True, 2)


@pytest.mark.usefixtures("weightless")
def test_a_lora_of_history_weights_alone_fits(asked, framepack_folder, tiny_backbone_folder, tmp_path):
    begun = lora(tmp_path / "begun.safetensors", "history_patch_embed.proj.k1h2w2", (4, 1, 2, 2))
    (report,) = checked(asked, tmp_path, begun).loras
    assert len(report.matched) == 2
    own = lora(tmp_path / "own.safetensors", "clean_x_embedder.proj", (16, 1, 2, 2))
    (report,) = checked(asked, tmp_path, own, model=str(framepack_folder), order="inverted", solver="unipc").loras
    assert len(report.matched) == 2


def test_history_weights_that_a_single_file_has_not_take_a_lora_too(tiny_backbone_folder, tmp_path):
    single = tmp_path / "single.safetensors"
    folder = tiny_backbone_folder / "transformer"
    whole = loading.load_transformer(folder, loading.load_settings(folder.parent), torch.device("cpu"), torch.float32)
    del whole.history_patch_embed
    save_file(whole.state_dict(), single)
    shutil.copy(folder / "config.json", tmp_path)
    places = {"transformer": single}
    path = lora(tmp_path / "begun.safetensors", "history_patch_embed.proj.k1h2w2", (4, 1, 2, 2))
    (foreseen,) = loading.foresee(tiny_backbone_folder, places, [Lora(file=path)])
    backbone = loading.load_backbone(tiny_backbone_folder, how=Loaded(places=places, loras=(Lora(file=path),)))
    assert len(foreseen.matched) == 2
    assert backbone.remarks[0].endswith("2 of 2 tensors applied")


def test_an_outline_says_what_the_whole_file_says(tmp_path, tiny_backbone_folder):
    difference = {f"{TO_Q}.diff_b": torch.ones(WIDTH), "blocks.1.attn1.to_k.alpha": torch.tensor(2.0)}
    path = lora(tmp_path / "style.safetensors", **difference)
    outline, whole = outline_lora(path), read_lora(path)
    assert outline.keys == whole.keys
    assert all(layer.down.is_meta and layer.up.is_meta for layer in outline.layers)
    assert [layer.scale for layer in outline.layers] == [layer.scale for layer in whole.layers]
    network = loading.load_backbone(tiny_backbone_folder).transformer
    (foreseen,), (seen,) = (foresee_loras(network, [(file, 1.0)]) for file in (outline, whole))
    assert (foreseen.matched, foreseen.unmatched) == (seen.matched, seen.unmatched)
    assert (foreseen.foreseen, seen.foreseen) == (True, False)


@pytest.fixture
def two_networks(tiny_backbone_folder, tmp_path):
    """A folder of Wan 2.2's layout, as its publisher has it."""
    folder = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.9}
    (folder / "model_index.json").write_text(json.dumps(index))
    settings = json.loads((folder / "longtake.json").read_text()) | {"boundary": 0.8}
    (folder / "longtake.json").write_text(json.dumps(settings))
    return folder


def adapted(transformer):
    return [module.scaling for module in transformer.modules() if hasattr(module, "scaling")]


def test_each_of_two_networks_gets_the_loras_that_are_meant_for_it(two_networks, asked, tmp_path):
    path = lora(tmp_path / "style.safetensors")
    files = [f"{path}:0.5@high", f"{path}:0.25@low", f"{path}:2"]
    wanted = checked(asked, tmp_path, *files, model=str(two_networks))
    backbone = loading.load_backbone(two_networks, how=Loaded(loras=wanted.config.loras))
    assert adapted(backbone.transformer) == [{"lora_0": 0.5, "lora_1": 2.0}]
    assert adapted(backbone.second.transformer) == [{"lora_0": 0.25, "lora_1": 2.0}]
    said = [
        f"style.safetensors at {weight} in the network for {network} noise (Wan, diffusers' names): 2 of 2 tensors "
        for network, weight in (("high", "0.5"), ("high", "2"), ("low", "0.25"), ("low", "2"))
    ]
    assert list(backbone.remarks) == [f"{line}applied" for line in said]
    assert list(map(str, wanted.loras)) == [f"{line}have a place" for line in said]


def test_a_network_that_a_model_does_not_have_is_refused(asked, tiny_backbone_folder, tmp_path):
    path = lora(tmp_path / "style.safetensors")
    with pytest.raises(ModelError, match=r"style\.safetensors@low: this model has one network"):
        checked(asked, tmp_path, f"{path}@low")
    with pytest.raises(ModelError, match="this model has one network"):
        loading.load_backbone(tiny_backbone_folder, how=Loaded(loras=(Lora(file=path, network="high"),)))


@pytest.mark.parametrize(
    ("text", "file", "weight", "network"),
    [
        ("style.safetensors", "style.safetensors", 1.0, "both"),
        ("style.safetensors:-0.5", "style.safetensors", -0.5, "both"),
        ("style.safetensors@low", "style.safetensors", 1.0, "low"),
        ("a@high/style.safetensors:2", "a@high/style.safetensors", 2.0, "both"),
        (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", 1.0, "both"),
        (r"C:\loras\style.safetensors:0.8@high", r"C:\loras\style.safetensors", 0.8, "high"),
    ],
)
def test_weight_and_network_stand_behind_the_file(text, file, weight, network):
    assert Lora.parse(text) == Lora(file=Path(file), weight=weight, network=network)


@pytest.mark.parametrize("text", ["style.safetensors@hihg", "style.safetensors@high:0.8", "a.safetensors:1@both"])
def test_what_is_no_network_is_refused(text, asked):
    with pytest.raises(ValidationError, match="expected FILE, FILE:WEIGHT, and behind either @high or @low"):
        asked(loras=[text])


def test_weights_by_their_files_are_read_too(asked, tmp_path):
    path = lora(tmp_path / "style.safetensors")
    config = checked(asked, tmp_path, f"{path}:0.5").config
    former = json.loads(config.model_dump_json()) | {"loras": {str(path): 0.5}}
    assert Config.model_validate(former) == config


def test_a_run_notes_what_it_began_with(asked, backbone, tiny_backbone_folder, tmp_path):
    path = lora(tmp_path / "style.safetensors")
    folder = tmp_path / "run"
    events = generate(asked(loras=[f"{path}:0.5", f"{path}:0.25"]), tmp_path / "a.mp4", folder, backbone)
    next(events)
    events.close()
    noted = Run.open(folder).read_manifest()
    assert noted == manifest_of(locate(str(tiny_backbone_folder)), [path])
    settings, last = noted.parts[-2:]
    assert [file.name for file in settings.files] == ["longtake.json"]
    assert (last.name, last.source, last.files[0].bytes) == ("lora", str(path), path.stat().st_size)
    (folder / "manifest.json").unlink()
    assert Run.open(folder).read_manifest() is None
    assert "Made with" not in draw_run(Run.open(folder))
