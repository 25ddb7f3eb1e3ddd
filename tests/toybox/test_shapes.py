import numpy as np
import pytest

from longtake.toybox import shapes

MESHES = {
    "box": shapes.rounded_box((0.5, 0.4, 0.3), 0.05),
    "cylinder": shapes.rounded_cylinder(0.4, 0.5, 0.05),
    "cone": shapes.rounded_cone(0.5, 1.0, 0.05, 0.05),
    "egg": shapes.egg(0.4, 0.5),
    "ring": shapes.ring(0.4, 0.1),
}
VOLUMES = {  # of the shape with sharp edges
    "box": 8 * 0.5 * 0.4 * 0.3,
    "cylinder": np.pi * 0.4**2 * 1.0,
    "cone": np.pi * 0.5**2 / 3,
    "egg": 4 / 3 * np.pi * 0.4**2 * 0.5,
    "ring": 2 * np.pi**2 * 0.4 * 0.1**2,
}


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_encloses_the_volume_of_its_shape(name):
    mesh = MESHES[name]
    a, b, c = (mesh.points[mesh.triangles[:, k]] for k in range(3))
    volume = (np.cross(a, b) * c).sum() / 6  # positive only if the triangles turn outward
    # Rounded edges take up to 5% away, and chords of 40 sides 1%.
    assert 0.92 * VOLUMES[name] < volume < 1.01 * VOLUMES[name]


@pytest.mark.parametrize("name", MESHES)
def test_normals_are_unit_vectors_that_point_outward(name):
    mesh = MESHES[name]
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-9)
    a, b, c = (mesh.points[mesh.triangles[:, k]] for k in range(3))
    facing = (np.cross(b - a, c - a)[:, None] * mesh.normals[mesh.triangles]).sum(-1)
    assert (facing > -1e-12).all()


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_has_no_holes(name):
    mesh = MESHES[name]
    _, same = np.unique(mesh.points.round(6), axis=0, return_inverse=True)
    triangles = same.reshape(-1)[mesh.triangles]
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    there = {tuple(e) for e in edges.tolist()}
    assert {(b, a) for a, b in there} == there
