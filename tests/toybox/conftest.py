from importlib.util import find_spec

import numpy as np
import pytest

from longtake.toybox import DIFFICULTIES, Studio, Truth
from longtake.toybox.camera import camera_path, draw_program
from longtake.toybox.physics import draw_events
from longtake.toybox.scenes import draw_scene


@pytest.fixture(scope="package")
def studio():
    if find_spec("mujoco") is None:
        pytest.skip("MuJoCo is not installed")
    with Studio() as studio:
        yield studio


@pytest.fixture(scope="package", params=["kind", "wide"])
def clip(request, studio):
    return studio.clip(seed=11, difficulty=request.param, images=37, height=48, width=80)


@pytest.fixture(scope="session")
def imagined():
    """A truth that nobody rendered: random toys are seen, each event lasts a second."""

    def imagine(seed, difficulty="kind", images=217, fps=12):
        world, draw = DIFFICULTIES[difficulty], np.random.default_rng(seed)
        scene = draw_scene(draw, world)
        program = draw_program(draw, world.camera, images, fps)
        path = camera_path(draw, world.camera, program, fps)
        events = draw_events(draw, world, scene, images, fps)
        toys = len(scene.toys)
        return Truth(
            seed=seed,
            attempt=0,
            difficulty=difficulty,
            fps=fps,
            scene=scene,
            program=program,
            events=tuple(type(e)(e.kind, e.toy, e.first, e.first + fps, e.angle, e.strength) for e in events),
            camera=path.astype(np.float32),
            poses=np.zeros((images, toys, 7), np.float32),
            visibility=np.repeat(draw.uniform(-0.05, 0.2, (1, toys)).clip(0).astype(np.float32), images, 0),
        )

    return imagine
