import pytest
import torch

from longtake.errors import ConfigError
from longtake.packing import Codebook, Discretization, History, fit_codebook, fit_of
from longtake.schedule import Kernel

K1, K4 = Kernel(1, 2, 2), Kernel(4, 8, 8)


def blobs(count=4000, centers=12, spread=0.05, seed=0):
    draw = torch.Generator().manual_seed(seed)
    places = torch.randn(centers, 16, generator=draw) * 3
    chosen = torch.randint(centers, (count,), generator=draw)
    return places, places[chosen] + spread * torch.randn(count, 16, generator=draw)


def test_words_find_the_centers_of_clusters():
    places, vectors = blobs()
    codebook = fit_codebook(vectors, 12)
    nearest = torch.cdist(places, codebook.words).min(1)
    assert sorted(nearest.indices.tolist()) == list(range(12))
    # A word is the mean of about 333 vectors: 0.05 / sqrt(333) in each of 16 directions is 0.011 in all.
    assert nearest.values.max() < 0.03


def test_a_seed_gives_the_same_words_again():
    _, vectors = blobs()
    assert torch.equal(fit_codebook(vectors, 32, seed=3).words, fit_codebook(vectors, 32, seed=3).words)
    assert not torch.equal(fit_codebook(vectors, 32, seed=3).words, fit_codebook(vectors, 32, seed=4).words)


def test_more_words_explain_more():
    vectors = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    held_out = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(1))
    fits = [fit_of(fit_codebook(vectors, size), held_out) for size in (1, 4, 16, 64, 256)]
    explained = [fit.explained for fit in fits]
    assert explained == sorted(explained)
    assert explained[0] == pytest.approx(0.0, abs=1e-3)  # one word is the mean
    assert explained[-1] > 0.8
    assert all(fit.dead == 0 for fit in fits)


def test_fitting_is_no_worse_than_many_whole_passes():
    _, vectors = blobs(centers=40, spread=1.0)
    ours = fit_of(fit_codebook(vectors, 24, batch=512), vectors).explained
    words = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(5))[:24]]
    for _ in range(100):
        nearest = Codebook(words).nearest(vectors)
        words = torch.stack([vectors[nearest == k].mean(0) if (nearest == k).any() else words[k] for k in range(24)])
    assert ours > fit_of(Codebook(words), vectors).explained - 0.02  # both stop in a local best


def test_a_dead_word_is_reported():
    codebook = Codebook(torch.tensor([[0.0], [1.0], [100.0]]))
    assert fit_of(codebook, torch.tensor([[0.0], [1.1], [0.2]])).dead == 1


def test_more_words_than_different_vectors_are_refused():
    with pytest.raises(ConfigError, match="64 words cannot be made of 3 different latent pixels"):
        fit_codebook(torch.eye(3).repeat(100, 1), 64)


def test_quantizing_twice_changes_nothing_more():
    draw = torch.Generator().manual_seed(0)
    codebook = Codebook(torch.randn(8, 16, generator=draw))
    frames = torch.randn(2, 16, 3, 4, 5, generator=draw)
    once = codebook.quantize(frames)
    assert torch.equal(codebook.quantize(once), once)
    assert torch.equal(codebook.decode(codebook.indices(frames)), once)
    assert once.unique().numel() <= codebook.words.numel()


def remembered(**options):
    draw = torch.Generator().manual_seed(0)
    codebook = Codebook(torch.randn(4, 16, generator=draw))
    history = History(discretization=Discretization({"*": codebook}, **options))
    frames = torch.randn(1, 16, 3, 4, 4, generator=draw)
    history.remember([0], frames[:, :, :1], exact=True)
    history.remember([1, 2], frames[:, :, 1:])
    return history, codebook, frames


def test_made_frames_are_shown_as_words_and_the_users_own_image_as_it_is():
    history, codebook, frames = remembered()
    shown = history.show([0, 1, 2], K1)
    assert torch.equal(shown[:, :, 0], frames[:, :, 0])
    assert torch.equal(shown[:, :, 1:], codebook.quantize(frames[:, :, 1:]))
    assert torch.equal(history.read([0, 1, 2]), frames)


def test_the_users_own_image_is_rounded_if_that_is_asked_for():
    history, codebook, frames = remembered(exact_too=True)
    assert torch.equal(history.show([0, 1, 2], K1), codebook.quantize(frames))


def test_an_image_that_a_section_replaces_is_exact_no_more():
    history, codebook, frames = remembered()
    history.remember([0], frames[:, :, :1])
    assert torch.equal(history.show([0], K1), codebook.quantize(frames[:, :, :1]))


def test_absent_frames_stay_zero():
    codebook = Codebook(torch.ones(1, 16))
    history = History(missing="zeros", discretization=Discretization({"*": codebook}))
    history.remember([3], torch.randn(1, 16, 1, 4, 4))
    shown = history.show([2, 3], K1)
    assert (shown[:, :, 0] == 0).all()
    assert (shown[:, :, 1] == 1).all()


def test_each_kernel_can_have_its_own_words():
    fine, coarse = Codebook(torch.zeros(1, 16)), Codebook(torch.ones(1, 16))
    history = History(discretization=Discretization({"k1": fine, "k4": coarse}))
    frames = torch.randn(1, 16, 4, 8, 8)
    history.remember(range(4), frames)
    assert (history.show([0], K1) == 0).all()
    assert (history.show(range(4), K4) == 1).all()
    assert torch.equal(history.show([0, 1], Kernel(2, 4, 4)), frames[:, :, :2])
