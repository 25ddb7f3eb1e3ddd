"""One model is kept between videos, and no two."""

import gc
import weakref

import pytest
import torch

from longtake.pipeline import Config, Runtime, Shelf, generate, preflight


@pytest.fixture
def config(asked, tmp_path):
    def resolve(**changes) -> Config:
        return preflight(asked(**changes), tmp_path / "a.mp4", tmp_path / "run").config

    return resolve


@pytest.fixture
def taken(tmp_path):
    def take(shelf, config):
        return shelf.take(config, torch.device("cpu"), Runtime("cpu"), tmp_path)

    return take


def test_a_model_that_is_wanted_again_in_the_same_way_is_not_loaded_again(config, taken):
    shelf = Shelf()
    first = taken(shelf, config(prompt="a red ball"))
    assert taken(shelf, config(prompt="a blue box", seed=3)).backbone is first.backbone


def test_a_model_that_is_wanted_in_another_way_takes_the_place_of_the_first(config, taken):
    shelf = Shelf()
    transformer = taken(shelf, config()).backbone.transformer
    before = weakref.ref(transformer)
    del transformer
    assert taken(shelf, config(height=48)).backbone.transformer is not before()
    gc.collect()
    assert before() is None


def test_a_shelf_that_is_cleared_holds_nothing(config, taken):
    shelf = Shelf()
    before = weakref.ref(taken(shelf, config()).backbone.transformer)
    shelf.clear()
    assert before() is None


def test_videos_from_a_shelf_are_those_of_models_that_are_loaded_anew(undisturbed, asked, tmp_path, contents):
    shelf = Shelf()
    list(generate(asked(prompt="a blue box", seconds=3), tmp_path / "b.mp4", tmp_path / "b", shelf))
    list(generate(undisturbed.request, tmp_path / "a.mp4", tmp_path / "a", shelf))
    assert contents(tmp_path / "a") == undisturbed.contents
