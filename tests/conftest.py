import gc
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny import save_tiny


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the suite off a GPU unless its tests are asked for: models go to one where there is one."""
    if "not gpu" in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """Takes all that stands after collection out of the collector's sight: models ask for whole collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_backbone_folder(tmp_path_factory) -> Path:
    """A whole model folder of the real classes at tiny size, with random weights: don't write into it.

    Images of 32 x 48 make latents of 4 channels on a grid of 4 x 6, that is 6 tokens a frame.
    """
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def framepack_folder(tmp_path_factory) -> Path:
    """A whole FramePack model at tiny size, with random weights: don't write into it."""
    from framepack import save_framepack

    return save_framepack(tmp_path_factory.mktemp("framepack"))


@pytest.fixture(scope="session", params=["base", "mid", "distilled"])
def helios_folder(request, tmp_path_factory) -> Path:
    """A whole Helios at tiny size, with random weights, of each kind: don't write into it."""
    from helios import save_helios

    return save_helios(tmp_path_factory.mktemp("helios") / request.param, request.param)


@pytest.fixture(scope="session")
def flow_unipc():
    """A function (steps, mu) that gives diffusers' UniPC, changed into that of the official FramePack program.

    Its lambda is -ln sigma, and it ends at its last clean prediction.
    """
    import numpy as np
    import torch
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    class FlowUniPC(UniPCMultistepScheduler):
        def _sigma_to_alpha_sigma_t(self, sigma):
            return torch.ones_like(sigma), sigma

        def set_timesteps(self, *args, **kwargs):
            super().set_timesteps(*args, **kwargs)
            self.sigmas[0] = 1.0
            self.timesteps = self.sigmas[:-1] * 1000

        def multistep_uni_p_bh_update(self, model_output, *args, **kwargs):
            if self.sigmas[self.step_index + 1] == 0:
                return self.model_outputs[-1]
            return super().multistep_uni_p_bh_update(model_output, *args, **kwargs)

    def scheduler(steps, mu):
        made = FlowUniPC(
            solver_order=min(3, steps - 1),
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            use_dynamic_shifting=True,
            solver_type="bh1",
            lower_order_final=False,
        )
        made.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1], mu=mu)
        return made

    return scheduler


@pytest.fixture(scope="session")
def cache_in_hub() -> Callable[[Path, str, Path, str], Path]:
    """Lays a folder out in a hub's cache as huggingface_hub does: blobs by digest, a snapshot of links, a branch."""

    def cache(home: Path, repo: str, folder: Path, under: str = "") -> Path:
        commit = hashlib.sha1(repo.encode()).hexdigest()
        there = home / f"models--{repo.replace('/', '--')}"
        snapshot = there / "snapshots" / commit
        (there / "blobs").mkdir(parents=True, exist_ok=True)
        (there / "refs").mkdir(exist_ok=True)
        (there / "refs" / "main").write_text(commit)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            blob = there / "blobs" / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            link = snapshot / under / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        return snapshot

    return cache
