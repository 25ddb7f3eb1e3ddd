import itertools
import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from longtake.backbones import load_backbone
from longtake.errors import ModelError, NumericsError, OutputError, RunError
from longtake.flow import noise
from longtake.media import fit, load_image, read_comment, read_video
from longtake.packing import Codebook
from longtake.pipeline import Finished, Planned, Run, SectionDone, Step, generate, make, reroll
from longtake.pipeline.request import read_request

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def copy_of(undisturbed, tmp_path):
    return Run.open(shutil.copytree(undisturbed.folder, tmp_path / "run"))


def latents_of(run):
    return [run.read_section(section) for section in run.config.plan().sections]


def test_events_come_in_one_order(undisturbed):
    planned, *middle, finished = undisturbed.events
    assert isinstance(planned, Planned)
    assert isinstance(finished, Finished)
    sections = planned.plan.sections
    said = [(type(e), e.section.index, e.step if isinstance(e, Step) else None) for e in middle]
    assert said == [
        row for s in sections for row in ((Step, s.index, 1), (Step, s.index, 2), (SectionDone, s.index, None))
    ]
    assert (planned.steps, planned.finished, planned.plan.order) == (2, 0, undisturbed.request.order)
    assert (planned.folder, planned.video) == (undisturbed.folder, undisturbed.folder / "video.mp4")


def test_a_finished_video_has_all_images_and_the_request(undisturbed):
    finished = undisturbed.events[-1]
    assert finished.images == 145
    assert read_video(finished.path).shape == (145, 32, 48, 3)
    assert read_request(json.loads(read_comment(finished.path))) == undisturbed.request


def test_a_section_done_is_what_is_on_disk(undisturbed):
    run = Run.open(undisturbed.folder)
    for event in (e for e in undisturbed.events if isinstance(e, SectionDone)):
        assert torch.equal(run.read_section(event.section), event.latents)
        assert event.latents.shape == (1, 4, 9, 4, 6)
        assert event.latents.dtype == torch.float32
        assert event.latents.std() > 0.1


def test_the_last_step_is_the_section(undisturbed):
    for step, done in itertools.pairwise(undisturbed.events):
        if isinstance(done, SectionDone):
            assert torch.equal(step.latents, done.latents)


def test_a_video_begins_with_the_start_image(undisturbed, picture):
    start = load_image(undisturbed.folder / "start.png")
    assert np.array_equal(start, fit(load_image(picture), 32, 48))


def test_the_file_grows_with_the_sections(asked, backbone, tmp_path):
    """Forward from its beginning; backward from its end, each section once the one before it in time is known."""
    for order, wanted in {"vanilla": [37, 73, 109, 145], "inverted": [0, 36, 72, 145]}.items():
        folder = tmp_path / order
        said = []
        for event in generate(asked(order=order), tmp_path / f"{order}.mp4", folder, backbone):
            if isinstance(event, SectionDone):
                said.append(event.images)
                assert (len(read_video(folder / "video.mp4")) if event.images else 0) == event.images
        assert said == wanted


def test_two_runs_of_one_request_are_equal_to_the_bit(undisturbed, asked, backbone, tmp_path, contents):
    list(generate(undisturbed.request, tmp_path / "a.mp4", tmp_path / "run", backbone))
    assert contents(tmp_path / "run") == undisturbed.contents
    assert (tmp_path / "a.mp4").read_bytes() == undisturbed.video


def test_a_backbone_is_loaded_where_none_is_given(undisturbed, tmp_path, contents):
    list(generate(undisturbed.request, tmp_path / "a.mp4", tmp_path / "run"))
    assert contents(tmp_path / "run") == undisturbed.contents


def test_what_was_drawn_before_changes_nothing(undisturbed, backbone, tmp_path, contents):
    torch.manual_seed(99)
    for _ in generate(undisturbed.request, tmp_path / "a.mp4", tmp_path / "run", backbone):
        torch.rand(3)
    assert contents(tmp_path / "run") == undisturbed.contents


def test_noise_belongs_to_seed_and_section(undisturbed, asked, backbone, tmp_path):
    """One step of Euler from noise x at sigma 1 is x - v, and equal noise with equal context gives equal latents."""
    order = undisturbed.request.order
    list(generate(asked(order=order, seconds=3), tmp_path / "short.mp4", tmp_path / "short", backbone))
    list(generate(asked(order=order, seconds=3, seed=1), tmp_path / "other.mp4", tmp_path / "other", backbone))
    list(generate(asked(order=order, seconds=3, seeds={0: 1}), tmp_path / "same.mp4", tmp_path / "same", backbone))
    short, other, same = (latents_of(Run.open(tmp_path / name))[0] for name in ("short", "other", "same"))
    assert not torch.equal(short, other)
    assert torch.equal(other, same)
    if order == "vanilla":  # the first section of a longer video sees the same
        assert torch.equal(short, latents_of(Run.open(undisturbed.folder))[0])
    draws = [noise((1, 4, 9, 4, 6), seed, section) for seed in (0, 1) for section in range(4)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


@pytest.mark.parametrize("changes", [{"prompt": "a blue box"}, {"steps": 3}, {"solver": "unipc"}])
def test_what_is_asked_for_matters(asked, backbone, undisturbed, tmp_path, changes):
    wanted = asked(order=undisturbed.request.order, **changes)
    list(generate(wanted, tmp_path / "a.mp4", tmp_path / "run", backbone))
    made, before = latents_of(Run.open(tmp_path / "run")), latents_of(Run.open(undisturbed.folder))
    assert not all(torch.equal(a, b) for a, b in zip(made, before, strict=True))


def test_guidance_leads_away_from_the_negative_prompt(asked, backbone, tmp_path):
    made = []
    for name, negative in (("a", ""), ("b", "a blue box")):
        wanted = asked(guidance=4.0, negative_prompt=negative, seconds=3)
        list(generate(wanted, tmp_path / f"{name}.mp4", tmp_path / name, backbone))
        made.append(latents_of(Run.open(tmp_path / name))[0])
    assert not torch.equal(*made)


def files_in(folder):
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_closing_stops_the_work_and_releases_the_run(undisturbed, backbone, tmp_path):
    events = generate(undisturbed.request, tmp_path / "a.mp4", tmp_path / "run", backbone)
    for event in events:
        if isinstance(event, Step) and event.section.index == 1:
            break
    run = Run.open(tmp_path / "run")
    with pytest.raises(RunError, match="another process works on this run"), run.lock():
        pass
    before = files_in(tmp_path)
    events.close()
    assert files_in(tmp_path) == before
    assert [run.has_section(i) for i in range(4)] == [True, False, False, False]
    with run.lock():
        pass


def test_nothing_happens_before_the_first_event_is_asked_for(asked, tmp_path):
    generate(asked(), tmp_path / "a.mp4", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_that_is_stopped_and_resumed_is_equal_to_the_bit(undisturbed, backbone, tmp_path, seed, contents):
    """It is stopped behind random events, again and again, and now and then its decoded files are lost."""
    rng, output, folder = random.Random(seed), tmp_path / "a.mp4", tmp_path / "run"
    events = generate(undisturbed.request, output, folder, backbone)
    for _ in range(6):
        for _ in itertools.islice(events, rng.randrange(1, 7)):
            pass
        events.close()
        for path in sorted([folder / "video.mp4", folder / "start.safetensors", *folder.glob("segments/*")]):
            if path.exists() and rng.random() < 0.15:
                path.unlink()
        events = make(Run.open(folder), output, backbone)
    list(events)
    assert contents(folder) == undisturbed.contents
    assert output.read_bytes() == undisturbed.video


def test_sections_that_are_there_are_not_made_again(undisturbed, backbone, tmp_path, contents):
    run = copy_of(undisturbed, tmp_path)
    run.section_path(2).unlink()
    planned, *events = make(run, tmp_path / "a.mp4", backbone)
    assert planned.finished == 3
    assert {e.section.index for e in events if isinstance(e, Step)} == {2}
    assert [e.section.index for e in events if isinstance(e, SectionDone)] == [0, 1, 2, 3]
    assert contents(run.folder) == undisturbed.contents


def test_a_finished_run_gives_its_video_again(undisturbed, backbone, tmp_path, contents):
    run = copy_of(undisturbed, tmp_path)
    run.video.write_bytes(run.video.read_bytes()[:-100])
    events = list(make(run, tmp_path / "a.mp4", backbone))
    assert [type(e) for e in events] == [Planned, Finished]
    assert (tmp_path / "a.mp4").read_bytes() == undisturbed.video
    assert contents(run.folder) == undisturbed.contents


def test_leftovers_of_a_killed_run_are_cleared_away(undisturbed, backbone, tmp_path):
    run = copy_of(undisturbed, tmp_path)
    for name in ("sections/0002.safetensors.unfinished", "video.mp4.unfinished"):
        (run.folder / name).write_bytes(b"half")
    list(make(run, tmp_path / "a.mp4", backbone))
    assert not list(run.folder.rglob("*.unfinished"))


@pytest.mark.parametrize("first", [1, 3])
def test_a_reroll_keeps_earlier_sections_and_changes_the_later_ones(undisturbed, backbone, tmp_path, first, contents):
    run = reroll(copy_of(undisturbed, tmp_path), first, seed=7)
    assert [run.has_section(i) for i in range(4)] == [i < first for i in range(4)]
    list(make(run, tmp_path / "a.mp4", backbone))
    for index, (new, old) in enumerate(zip(latents_of(run), latents_of(Run.open(undisturbed.folder)), strict=True)):
        assert torch.equal(new, old) == (index < first)
    assert (tmp_path / "a.mp4").read_bytes() != undisturbed.video
    made = contents(run.folder)
    list(make(reroll(Run.open(run.folder), first, seed=7), tmp_path / "again.mp4", backbone))
    assert contents(run.folder) == made
    back = reroll(Run.open(run.folder), first, seed=undisturbed.request.seed)
    list(make(back, tmp_path / "back.mp4", backbone))
    assert {k: v for k, v in contents(run.folder).items() if "sections" not in k} == {
        k: v for k, v in undisturbed.contents.items() if "sections" not in k
    }


def test_images_of_earlier_sections_stay_in_a_forward_reroll(asked, backbone, tmp_path):
    list(generate(asked(), tmp_path / "a.mp4", tmp_path / "run", backbone))
    before = [(tmp_path / "run" / "segments" / f"{i:04d}.mp4").read_bytes() for i in range(4)]
    list(make(reroll(Run.open(tmp_path / "run"), 2, seed=7), tmp_path / "a.mp4", backbone))
    after = [(tmp_path / "run" / "segments" / f"{i:04d}.mp4").read_bytes() for i in range(4)]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, True, False, False]


def test_a_reroll_of_a_reroll_keeps_what_came_before_both(undisturbed, backbone, tmp_path):
    run = reroll(copy_of(undisturbed, tmp_path), 1, seed=7)
    list(make(run, tmp_path / "a.mp4", backbone))
    first = latents_of(run)
    run = reroll(run, 3, seed=8)
    list(make(run, tmp_path / "b.mp4", backbone))
    assert [torch.equal(a, b) for a, b in zip(latents_of(run), first, strict=True)] == [True, True, True, False]
    assert run.config.seeds == {1: 7, 2: 7, 3: 8}


def test_the_request_in_a_rerolled_video_repeats_it(undisturbed, backbone, tmp_path):
    run = reroll(copy_of(undisturbed, tmp_path), 2, seed=7)
    list(make(run, tmp_path / "a.mp4", backbone))
    wanted = read_request(json.loads(read_comment(tmp_path / "a.mp4")))
    list(generate(wanted, tmp_path / "b.mp4", tmp_path / "b.run", backbone))
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("section", [-1, 4, 100])
def test_a_section_that_is_not_there_cannot_be_made_again(undisturbed, tmp_path, section, contents):
    run = copy_of(undisturbed, tmp_path)
    with pytest.raises(RunError, match=f"section {section} does not exist: this run has sections 0 to 3"):
        reroll(run, section, seed=1)
    assert contents(run.folder) == undisturbed.contents


@pytest.fixture
def held(undisturbed, tmp_path):
    """A run that another process works on."""
    run = copy_of(undisturbed, tmp_path)
    holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held'); input()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", holder, str(run.folder / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield run
        process.kill()


def test_a_run_that_another_process_works_on_is_left_alone(held, undisturbed, backbone, tmp_path):
    unfinished = held.folder / "sections" / "0003.safetensors.unfinished"
    unfinished.write_bytes(b"of the other process")
    before = files_in(tmp_path)
    for work in (
        lambda: next(make(Run.open(held.folder), tmp_path / "a.mp4", backbone)),
        lambda: reroll(Run.open(held.folder), 1, seed=7),
    ):
        with pytest.raises(RunError, match="another process works on this run"):
            work()
    assert files_in(tmp_path) == before


def test_a_folder_without_a_run_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="there is no run here"):
            Run.open(folder)


@pytest.mark.parametrize("name", ["config.json", "request.json"])
def test_a_run_whose_files_cannot_be_read_is_refused(undisturbed, tmp_path, name):
    run = copy_of(undisturbed, tmp_path)
    for content in ("", "{}", "[3]", '{"image": 3'):
        (run.folder / name).write_text(content)
        with pytest.raises(RunError, match="request or config cannot be read"):
            Run.open(run.folder)


def test_a_section_that_cannot_be_read_is_named(undisturbed, backbone, tmp_path, contents):
    run = copy_of(undisturbed, tmp_path)
    run.section_path(3).unlink()
    path = run.section_path(1)
    whole = path.read_bytes()
    for content in (whole[:-10], b"", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"0001\.safetensors: cannot be read .*; delete it to have it made again"):
            list(make(run, tmp_path / "a.mp4", backbone))
    path.write_bytes(run.section_path(2).read_bytes())
    with pytest.raises(RunError, match=r"these are frames \[.*\], not \["):
        list(make(run, tmp_path / "a.mp4", backbone))
    path.unlink()
    list(make(run, tmp_path / "a.mp4", backbone))
    assert contents(run.folder) == undisturbed.contents


def test_a_model_whose_files_changed_does_not_go_on_with_a_run(asked, backbone, tiny_backbone_folder, tmp_path):
    model = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    events = generate(asked(model=str(model)), tmp_path / "a.mp4", tmp_path / "run")
    for _ in itertools.islice(events, 4):
        pass
    events.close()
    state = load_file(model / WEIGHTS)
    state["proj_out.weight"][0, 0] += 1
    save_file(state, model / WEIGHTS)
    before = files_in(tmp_path / "run")
    with pytest.raises(ModelError, match="the model's files changed since this run began; start a new run"):
        next(make(Run.open(tmp_path / "run"), tmp_path / "a.mp4"))
    assert files_in(tmp_path / "run") == before


def test_a_reroll_with_a_model_whose_files_changed_forgets_nothing(asked, backbone, tiny_backbone_folder, tmp_path):
    model = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    list(generate(asked(model=str(model), seconds=3), tmp_path / "a.mp4", tmp_path / "run", backbone))
    (model / "longtake.json").write_text((model / "longtake.json").read_text() + "\n")
    before = files_in(tmp_path / "run")
    with pytest.raises(ModelError, match="the model's files changed since this run began"):
        reroll(Run.open(tmp_path / "run"), section=0, seed=1)
    assert files_in(tmp_path / "run") == before


def test_a_video_goes_where_it_was_asked_for_and_that_of_a_copied_run_beside_the_copy(asked, backbone, tmp_path):
    output, folder = tmp_path / "videos" / "a.mp4", tmp_path / "runs" / "b.run"
    output.parent.mkdir()
    next(generate(asked(seconds=3), output, folder, backbone))
    assert Run.open(folder).output == output
    assert Run.open(shutil.copytree(folder, tmp_path / "c.run")).output == tmp_path / "c.mp4"
    (folder / "output.json").write_text("{")
    with pytest.raises(RunError, match=r"output\.json: cannot be read"):
        _ = Run.open(folder).output


def test_a_run_beside_its_video_notes_no_place(undisturbed, asked, backbone, tmp_path):
    next(generate(asked(seconds=3), tmp_path / "a.mp4", tmp_path / "a.run", backbone))
    assert not (tmp_path / "a.run" / "output.json").exists()
    assert Run.open(tmp_path / "a.run").output == tmp_path / "a.mp4"


def test_latents_that_are_not_finite_name_their_section(asked, tiny_backbone_folder, tmp_path):
    """The kernel for distant frames is spoiled, which the second section is the first to look through."""
    model = shutil.copytree(tiny_backbone_folder, tmp_path / "model")
    state = load_file(model / WEIGHTS)
    state["history_patch_embed.proj.k4h8w8.weight"][0, 0, 0, 0, 0] = float("inf")
    save_file(state, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(NumericsError, match=r"section 1 \(frames 10 to 18\) is not finite; the sections before it"):
        list(generate(asked(model=str(model)), tmp_path / "a.mp4", tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    assert [run.has_section(i) for i in range(4)] == [True, False, False, False]
    assert len(read_video(run.video)) == 37
    assert not (tmp_path / "a.mp4").exists()


def test_an_output_is_checked_before_a_run_goes_on(undisturbed, backbone, tmp_path):
    run = copy_of(undisturbed, tmp_path)
    run.section_path(3).unlink()
    with pytest.raises(OutputError, match="there is no such folder"):
        next(make(run, tmp_path / "nowhere" / "a.mp4", backbone))
    assert not run.has_section(3)


def with_codebook(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "model")
    backbone = load_backbone(model)
    words = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    replace(backbone, codebooks={8: Codebook(words)}).save(model)
    return model


def test_discretized_history_changes_every_section_but_the_first(asked, tiny_backbone_folder, tmp_path):
    model = str(with_codebook(tiny_backbone_folder, tmp_path))
    plain, rounded, same = (
        [
            e.latents
            for e in generate(asked(model=model, **d), tmp_path / f"{i}.mp4", tmp_path / f"{i}")
            if isinstance(e, SectionDone)
        ]
        for i, d in enumerate(({}, {"codebook": 8}, {"schedule": "td_f1k1_x_f16k4f2k2f1k1_g9+D", "codebook": {"*": 8}}))
    )
    assert torch.equal(plain[0], rounded[0])  # it sees the user's own image, which is not rounded
    assert not any(torch.equal(a, b) for a, b in zip(plain[1:], rounded[1:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(same, rounded, strict=True))


def test_discretized_images_change_the_first_section_too(asked, tiny_backbone_folder, tmp_path):
    model = str(with_codebook(tiny_backbone_folder, tmp_path))
    plain, rounded = (
        next(
            e.latents
            for e in generate(asked(model=model, **d), tmp_path / f"{i}.mp4", tmp_path / f"{i}")
            if isinstance(e, SectionDone)
        )
        for i, d in enumerate(({}, {"codebook": 8, "discretize_images": True}))
    )
    assert not torch.equal(plain, rounded)


def test_a_codebook_that_the_model_lacks_is_refused_before_anything_is_written(asked, tiny_backbone_folder, tmp_path):
    model = str(with_codebook(tiny_backbone_folder, tmp_path))
    for changes, words in (({"model": model}, "codebook of 9 words; it has codebooks of 8"), ({}, "not trained with")):
        with pytest.raises(ModelError, match=words):
            next(generate(asked(codebook=9, **changes), tmp_path / "video.mp4", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_codebooks_of_another_codec_are_refused(tiny_backbone_folder, tmp_path):
    model = with_codebook(tiny_backbone_folder, tmp_path)
    path = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["post_quant_conv.bias"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="these codebooks belong to another codec"):
        load_backbone(model)


def test_codebooks_that_cannot_be_written_are_an_error_of_the_project(tiny_backbone_folder, tmp_path):
    model = with_codebook(tiny_backbone_folder, tmp_path)
    backbone = load_backbone(model)
    (model / "codebooks.safetensors").unlink()
    (model / "codebooks.safetensors").mkdir()
    with pytest.raises(OutputError, match="the codebooks could not be written"):
        backbone.save(model)
