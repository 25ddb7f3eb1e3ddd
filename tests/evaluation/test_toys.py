import numpy as np
import pytest
import torch
from einops import rearrange

from longtake.errors import ModelError
from longtake.evaluation.toys import (
    CELL,
    CLEAR,
    COLORS,
    SHAPES,
    Kind,
    ToyReader,
    kept,
    kinds_of,
    load_reader,
    middles,
    read_toys,
    save_reader,
    targets_of,
    train_reader,
)
from longtake.toybox import Studio
from longtake.toybox.scenes import TOY_COLORS

RED, BLUE = Kind("red", "ball"), Kind("blue", "ball")


@pytest.fixture(scope="module")
def clips():
    with Studio() as studio:
        return [studio.clip(seed, "kind", 3, 96, 160) for seed in range(4)]


def test_the_middle_of_a_toy_has_its_color(clips):
    checked = 0
    for clip in clips:
        places = middles(clip.truth, 96, 160)
        for k, toy in enumerate(clip.truth.toys):
            if clip.truth.visibility[0, k] > 0.02 and toy.texture == "plain":
                row, column = places[0, k].astype(int)
                pixel, color = clip.images[0, row, column] / 255, np.array(TOY_COLORS[toy.color])
                # Light and shade scale a color; the angle between two colors of the palette is 0.2 at least.
                assert pixel @ color / np.linalg.norm(pixel) / np.linalg.norm(color) > np.cos(0.2)
                checked += 1
    assert checked >= 3


def test_a_cell_is_asked_for_the_toy_in_it_and_its_neighbors_for_nothing(clips):
    clip = clips[0]
    targets, places = targets_of(clip.truth, 0, 96, 160), middles(clip.truth, 96, 160)[0]
    k = int(clip.truth.visibility[0].argmax())
    row, column = (places[k] // CELL).astype(int)
    assert targets[:, row, column].tolist() == [
        COLORS.index(clip.truth.toys[k].color),
        SHAPES.index(clip.truth.toys[k].shape),
    ]
    around = targets[0, row - 1 : row + 2, column - 1 : column + 2]
    assert (around != -1).all()
    assert (targets[0] == -1).float().mean() > 0.7


def test_a_reader_learns_what_it_is_shown_and_reads_the_same_from_its_file(clips, tmp_path):
    images = torch.from_numpy(np.concatenate([clip.images for clip in clips]))
    pixels = rearrange(images, "n h w c -> n c h w")
    targets = torch.stack([targets_of(clip.truth, image, 96, 160) for clip in clips for image in range(3)])
    torch.manual_seed(0)
    reader = ToyReader(16)
    losses = list(train_reader(reader, pixels, targets, steps=150, batch=12, rate=5e-3))
    assert np.mean(losses[-5:]) < 0.2 * np.mean(losses[:5])
    save_reader(reader, tmp_path / "reader.safetensors")
    again = load_reader(tmp_path / "reader.safetensors")
    for clip in clips:
        clear = {k for k, seen in zip(kinds_of(clip.truth), clip.truth.visibility[0], strict=True) if seen >= 2 * CLEAR}
        (read,) = read_toys(again, clip.images[:1])
        assert clear <= read
        assert [read] == read_toys(reader, clip.images[:1])


def test_another_file_is_no_reader(tmp_path):
    (tmp_path / "reader.safetensors").write_bytes(b"{}")
    with pytest.raises(ModelError, match="not the weights of a toy reader"):
        load_reader(tmp_path / "reader.safetensors")


def test_a_toy_is_kept_where_most_images_show_it():
    assert kept([[RED]], [[{RED}, {RED}, set()]], [[RED]]).both == 1
    assert kept([[RED]], [[{RED}, set(), set()]], [[RED]]).both == 0
    assert kept([[RED]], [[{RED}, set()]], [[RED]]).both == 0  # half is not most


def test_color_and_shape_are_kept_each_by_itself():
    found = kept([[RED, Kind("blue", "box")]], [[{Kind("red", "box")}]], [[RED, Kind("blue", "box")]])
    assert (found.both, found.color, found.shape, found.toys) == (0, 0.5, 0.5, 2)


def test_where_no_toy_is_expected_there_is_no_share():
    assert np.isnan(kept([[]], [[{BLUE}]], [[]]).both)


def test_what_a_section_shows_and_its_scene_does_not_have_is_counted():
    assert kept([[RED], [RED]], [[{RED, BLUE}], [{RED}]], [[RED], [RED]]).others == 0.5
