"""Runs with a storyboard: what each section is told, and the images that a video reaches."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.errors import InputError, PlanError, RunError, StoryboardError
from longtake.media import fit, load_image, read_comment, read_video
from longtake.pipeline import Planned, Run, generate, make, preflight, reroll
from longtake.pipeline.request import read_request
from longtake.plan import VANILLA, read_storyboard

ORDERS = ("vanilla", "inverted", "planned:2", "anti_drifting")


@pytest.fixture(scope="module")
def end(tmp_path_factory) -> Path:
    """A key image, of the shape of the start image."""
    path = tmp_path_factory.mktemp("picture") / "end.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 7, 3), np.uint8)).resize((70, 40)).save(path)
    return path


@pytest.fixture
def made(asked, backbone, tmp_path):
    """The run of a request with these changes; a storyboard may be given as its text."""
    numbers = itertools.count()

    def make_run(**changes):
        if isinstance(changes.get("storyboard"), str):
            changes["storyboard"] = read_storyboard(changes["storyboard"])
        name = f"{next(numbers)}"
        list(generate(asked(**changes), tmp_path / f"{name}.mp4", tmp_path / f"{name}.run", backbone))
        return Run.open(tmp_path / f"{name}.run")

    return make_run


def latents_of(run):
    """Of the sections in time order."""
    return [run.read_section(s) for s in sorted(run.config.plan().sections, key=lambda s: s.frames)]


def equal(run, other):
    """For each section in the order of making, whether two runs have the same of it."""
    return [torch.equal(run.read_section(s), other.read_section(s)) for s in run.config.plan().sections]


@contextmanager
def counted(*modules):
    """How often each module is called, as a list that grows."""
    calls = [0] * len(modules)

    def count(number):
        def hook(*_):
            calls[number] += 1

        return hook

    handles = [module.register_forward_hook(count(number)) for number, module in enumerate(modules)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("order", ORDERS)
def test_one_prompt_for_all_sections_is_the_prompt(made, order):
    run = made(order=order, prompt="a blue box")
    assert all(equal(run, made(order=order, prompt="", storyboard="0s: a blue box")))
    assert all(equal(run, made(order=order, prompt="[0s: a blue box]")))
    assert all(equal(run, made(order=order, prompt="a red ball", storyboard="0s seed=0 guidance=1: a blue box")))


@pytest.mark.parametrize(("order", "kept"), [("vanilla", 2), ("inverted", 1), ("planned:2", 3), ("anti_drifting", 3)])
def test_a_prompt_changes_no_section_that_was_made_before_it_is_told(made, order, kept):
    """The third section in time is the third, the second, the fourth and the last of those made."""
    run = made(order=order)
    told = made(order=order, storyboard="6s-9s: a blue box")
    assert equal(run, told) == [index < kept for index in range(4)]
    assert [told.config.prompt_of(s) for s in told.config.plan().sections].index("a blue box") == kept


@pytest.mark.parametrize("order", ORDERS)
def test_a_seed_belongs_to_a_place_in_time(made, order):
    told = made(order=order, storyboard="3s-6s seed=7")
    index = next(s.index for s in told.config.plan().sections if s.frames[0] == 10)
    assert all(equal(told, made(order=order, seeds={index: 7})))
    assert [told.config.seed_of(s) for s in told.config.plan().sections] == [7 if i == index else 0 for i in range(4)]


def test_guidance_of_1_takes_one_evaluation(made, backbone):
    with counted(backbone.transformer) as calls:
        mixed = made(storyboard="0s-6s guidance=1", guidance=4.0, negative_prompt="a blue box")
    assert calls == [2 * (1 + 1 + 2 + 2)]
    plain, guided = made(), made(storyboard="6s guidance=4", negative_prompt="a blue box")
    assert equal(plain, mixed) == [True, True, False, False]
    assert all(equal(guided, mixed))


def test_each_prompt_is_encoded_once(made, backbone):
    with counted(backbone.prompts.encoder) as calls:
        made(storyboard="0s: a red ball\n3s: a blue box\n6s: a red ball\n9s guidance=2", negative_prompt="a red ball")
    assert calls == [2]


def test_what_the_model_cannot_read_is_told_of_all_prompts(asked, backbone, tmp_path):
    request = asked(prompt="a red cat [3s: a dog and a cat] [6s: a blue box]")
    planned = next(generate(request, tmp_path / "a.mp4", tmp_path / "a.run", backbone))
    assert isinstance(planned, Planned)
    assert planned.unread == ("cat", "dog")


@pytest.mark.parametrize("order", ORDERS)
def test_a_key_image_at_the_end_is_seen_by_the_section_that_leads_there(made, end, order):
    run, told = made(order=order), made(order=order, storyboard=f"12s image={end}")
    seeing = {s.index: any(37 in look.frames for look in s.sees) for s in told.config.plan().sections}
    same = equal(run, told)
    assert seeing[next(s.index for s in told.config.plan().sections if s.frames[-1] == 36)]
    assert not any(same[index] for index, sees in seeing.items() if sees)


def test_a_key_image_is_seen_from_afar_and_made_anew(made, end):
    run = made(storyboard=f"6s image={end}")
    sections = run.config.plan().sections
    assert [any(19 in look.frames for look in s.sees) for s in sections] == [True, True, False, True]
    assert sections[2].frames[0] == 19
    assert equal(run, made()) == [False] * 4


def test_key_images_are_kept_in_the_run_and_encoded_once(made, end, backbone, tmp_path, contents):
    with counted(backbone.codec.network.encoder) as calls:
        run = made(storyboard=f"3s image={end}\n9s image={end}\nloop")
    assert calls == [2]  # the start image and the key image
    names = sorted(str(p.relative_to(run.folder)) for p in (run.folder / "keys").iterdir())
    assert names == [f"keys/{frame:04d}.{kind}" for frame in (10, 28, 37) for kind in ("png", "safetensors")]
    assert np.array_equal(load_image(run.folder / "keys" / "0010.png"), fit(load_image(end), 32, 48))
    assert torch.equal(run.read_key(10), run.read_key(28))
    assert torch.equal(run.read_key(37), run.read_start())
    before = contents(run.folder)
    for path in (*run.folder.glob("s*/*"), *run.folder.glob("keys/*.safetensors")):
        path.unlink()
    end.rename(end.with_name("moved.png"))
    with counted(backbone.codec.network.encoder) as calls:
        list(make(Run.open(run.folder), tmp_path / "again.mp4", backbone))
    end.with_name("moved.png").rename(end)
    assert calls == [1]
    assert contents(run.folder) == before


KILLS = 6


def test_a_run_with_key_images_killed_at_any_file_operation_goes_on_to_the_same_bytes(
    asked, end, backbone, tmp_path, contents
):
    board = read_storyboard(f"a ball\n3s-6s seed=7: a blue box\n6s image={end}\nloop")
    request = asked(order="vanilla", prompt="", storyboard=board)
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, script, tmp_path, "1", str(KILLS), request.model_dump_json()]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=200)
    root = tmp_path / "vanilla"
    whole = contents(root / "whole.run")
    for number in range(KILLS):
        folder, output = root / f"{number}.run", root / f"{number}.mp4"
        try:
            run = Run.open(folder)
        except RunError:  # it was not a run yet, and can begin anew
            list(generate(request, output, folder, backbone))
        else:
            list(make(run, output, backbone))
        assert contents(folder) == whole
        assert output.read_bytes() == (root / "whole.mp4").read_bytes()


def test_a_run_that_never_began_leaves_its_key_images_and_can_begin(asked, end, backbone, tmp_path):
    request = asked(seconds=3, storyboard=read_storyboard(f"3s image={end}"))
    list(generate(request, tmp_path / "a.mp4", tmp_path / "run", backbone))
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and path.suffix != ".png":
            path.unlink()
    list(generate(request, tmp_path / "b.mp4", tmp_path / "run", backbone))
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("storyboard", ["3s-9s seed=7: a blue box\n12s image={end}", "loop", "6s guidance=2"])
def test_a_video_repeats_its_storyboard(made, end, asked, backbone, tmp_path, storyboard):
    run = made(storyboard=storyboard.format(end=end), negative_prompt="a box")
    repeated = read_request(json.loads(read_comment(run.output)))
    assert repeated == run.request
    list(generate(repeated, tmp_path / "again.mp4", tmp_path / "again.run", backbone))
    assert (tmp_path / "again.mp4").read_bytes() == run.output.read_bytes()
    assert len(read_video(run.output)) == 145


def test_a_reroll_gives_seeds_to_sections_that_had_one_of_the_storyboard(made, backbone, tmp_path):
    run = made(storyboard="3s-6s seed=7\n9s seed=8")
    rerolled = reroll(run, 2, seed=5)
    list(make(rerolled, tmp_path / "b.mp4", backbone))
    assert [rerolled.config.seed_of(s) for s in rerolled.config.plan().sections] == [0, 7, 5, 5]
    again = made(storyboard="3s-6s seed=7\n9s seed=8", seeds={2: 5, 3: 5})
    assert all(equal(rerolled, again))
    assert read_request(json.loads(read_comment(tmp_path / "b.mp4"))) == again.request


def test_runs_from_before_there_were_storyboards_open(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    for name, added in (("config.json", {"told", "given"}), ("request.json", {"storyboard"})):
        data = json.loads((folder / name).read_text())
        assert added <= data.keys()
        (folder / name).write_text(json.dumps({key: data[key] for key in data.keys() - added}))
    run = Run.open(folder)
    assert (run.request, run.config) == (undisturbed.request, Run.open(undisturbed.folder).config)


def test_what_a_prompt_says_over_time_is_a_storyboard(asked):
    board = read_storyboard("3s: a blue box")
    request = asked(prompt="a red [big] ball [3s: a blue box]")
    assert (request.prompt, request.storyboard) == ("a red [big] ball", board)
    assert asked(prompt="a red [big] ball", storyboard=board) == request
    assert read_request(json.loads(request.model_dump_json())) == request


def test_a_storyboard_may_name_the_start_image(asked, picture):
    board = read_storyboard(f"a red ball\n0s image={picture} seed=3")
    request = read_request({"model": asked().model, "seconds": 12, "storyboard": board})
    assert request == asked(storyboard=read_storyboard("0s seed=3"))
    with pytest.raises(StoryboardError, match="a video starts from one image"):
        asked(image="other.png", storyboard=board)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": 3, "storyboard": {"loop": True}}, "prompt: input should be a valid string, got 3"),
        ({"image": 3}, "image: input is not a valid path"),
    ],
)
def test_a_wrong_value_beside_a_storyboard_is_named(changes, said):
    with pytest.raises(InputError) as caught:
        read_request({"image": "a.png", **changes})
    assert said in str(caught.value)


@pytest.fixture
def refused(asked, tmp_path):
    """Checks that a request is refused, for that reason, before anything is written."""

    def check(error, said, **changes):
        changes["storyboard"] = read_storyboard(changes["storyboard"], tmp_path)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(error, match=said):
            next(generate(asked(**changes), tmp_path / "a.mp4", tmp_path / "a.run"))
        assert sorted(tmp_path.iterdir()) == before

    return check


@pytest.mark.parametrize(
    ("storyboard", "changes", "error", "said"),
    [
        ("20s: a box", {}, StoryboardError, "the video ends at 12 s; one of 24 s would do"),
        ("3s image=nowhere.png", {}, InputError, r"nowhere\.png: there is no such image"),
        ("3s image=tall.png", {}, InputError, "40 x 60 pixels, of which 56% would be cropped away; .* such as 48 x 32"),
        ("3s image=near.png", {"schedule": VANILLA}, PlanError, "sees nothing that lies ahead; one that does: td_f1k1"),
        ("3s image=near.png", {"order": "inverted"}, StoryboardError, r"near\.png at 3 s: in the order inverted"),
        ("6s image=near.png", {"order": "planned:3"}, StoryboardError, r"near\.png at 6 s: in the order planned:3"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_before_work_starts(refused, tmp_path, storyboard, changes, error, said):
    for name, size in {"tall.png": (40, 60), "near.png": (40, 30)}.items():
        Image.new("RGB", size).save(tmp_path / name)
    refused(error, said, storyboard=storyboard, **changes)


def test_a_key_image_may_have_the_shape_of_the_start_image(asked, tmp_path):
    for name, size in {"start.png": (40, 60), "key.png": (80, 120)}.items():
        Image.new("RGB", size).save(tmp_path / name)
    request = asked(image=tmp_path / "start.png", storyboard=read_storyboard("3s image=key.png", tmp_path))
    assert preflight(request, tmp_path / "a.mp4", tmp_path / "a.run").config.given == (10,)
