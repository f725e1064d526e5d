import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from optax import projections as peer

from fnopt import projections
from fnopt.projections import (
    projection_affine_set,
    projection_box,
    projection_hypercube,
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_linf_ball,
    projection_linf_sphere,
    projection_non_negative,
    projection_simplex,
)

SETS = {
    "simplex": (projection_simplex, lambda p: (p.min() >= 0) and np.isclose(p.sum(), 2, rtol=1e-5)),
    "l1_ball": (projection_l1_ball, lambda p: np.abs(p).sum() <= 2 + 1e-5),
    "l2_ball": (projection_l2_ball, lambda p: np.linalg.norm(p) <= 2 + 1e-5),
    "linf_ball": (projection_linf_ball, lambda p: np.abs(p).max() <= 2),
    "l1_sphere": (projection_l1_sphere, lambda p: np.isclose(np.abs(p).sum(), 2, rtol=1e-5)),
    "l2_sphere": (projection_l2_sphere, lambda p: np.isclose(np.linalg.norm(p), 2, rtol=1e-5)),
    "linf_sphere": (projection_linf_sphere, lambda p: np.abs(p).max() == 2),
    "hypercube": (projection_hypercube, lambda p: (p.min() >= 0) and (p.max() <= 2)),
}
SETS = {name: (jax.jit(project), contains) for name, (project, contains) in SETS.items()}
CONVEX = ["simplex", "l1_ball", "l2_ball", "linf_ball", "hypercube"]


def point(seed=0, size=3.0):
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 2), "b": (4,), "c": ()}
    return {k: np.float32(size * rng.normal(size=s)) for k, s in shapes.items()}


def flat(t):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]).astype(np.float64)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("size", [3.0, 0.1, 0.0])
def test_the_projection_is_in_the_set_and_stays(name, size):
    project, contains = SETS[name]
    p = project(point(size=size), 2.0)
    assert contains(flat(p))
    np.testing.assert_allclose(flat(project(p, 2.0)), flat(p), atol=1e-5)


@pytest.mark.parametrize("name", CONVEX)
def test_no_point_of_the_set_is_nearer(name):
    # for a convex set: ⟨x − p, q − p⟩ ≤ 0 for every q in it
    project, _ = SETS[name]
    x = point()
    p = flat(project(x, 2.0))
    for seed in range(1, 20):
        q = flat(project(point(seed, size=2.0), 2.0))
        assert (flat(x) - p) @ (q - p) <= 1e-4


@pytest.mark.parametrize("name", [name for name in SETS if name != "linf_sphere"])
def test_agrees_with_optax(name, standard_numerics):
    ours, _ = SETS[name]
    x = flat(point()).astype(np.float32)
    theirs = getattr(peer, f"projection_{name}")
    theirs = jax.jit(theirs)
    np.testing.assert_allclose(ours(x, 2.0), theirs(x, 2.0), rtol=1e-4, atol=1e-6)


def test_zero_is_on_no_sphere_where_optax_makes_nan_or_stays(standard_numerics):
    zero = jnp.zeros(4)
    assert np.isnan(peer.projection_l2_sphere(zero)).all()
    assert not np.any(peer.projection_l1_sphere(zero))
    np.testing.assert_allclose(projection_l2_sphere(zero), 0.5)
    np.testing.assert_allclose(projection_l1_sphere(zero), 0.25)


def test_no_point_of_the_largest_norms_sphere_is_nearer():
    rng = np.random.default_rng(0)
    for size in (0.5, 3.0):
        x = flat(point(size=size))
        project, _ = SETS["linf_sphere"]
        distance = np.linalg.norm(flat(project(point(size=size), 2.0)) - x)
        for _ in range(200):
            q = rng.uniform(-2, 2, size=x.shape)
            q[rng.integers(x.size)] = rng.choice([-2.0, 2.0])
            assert np.linalg.norm(q - x) >= distance
        # of the nearest points of all faces it is the nearest
        faces = [
            np.where(np.arange(x.size) == i, s, np.clip(x, -2, 2))
            for i in range(x.size)
            for s in (-2, 2)
        ]
        assert min(np.linalg.norm(q - x) for q in faces) == pytest.approx(distance, rel=1e-6)
    tied = projection_linf_sphere({"a": jnp.array([-0.5, 0.5]), "b": jnp.float32(0.5)}, 2.0)
    np.testing.assert_array_equal(flat(tied), [-2.0, 0.5, 0.5])
    assert jnp.isnan(projection_linf_sphere(jnp.array([jnp.nan, 0.5]))[0])


def test_planes():
    x, a = point(), point(5)
    projection_hyperplane, projection_halfspace, projection_vector = map(
        jax.jit,
        (
            projections.projection_hyperplane,
            projections.projection_halfspace,
            projections.projection_vector,
        ),
    )
    on = projection_hyperplane(x, a, 0.5)
    assert flat(on) @ flat(a) == pytest.approx(0.5, abs=1e-3)
    along = flat(x) - flat(on)
    np.testing.assert_allclose(
        along,
        flat(projection_vector(x, a)) * (along @ along) / (along @ flat(projection_vector(x, a))),
        rtol=1e-3,
    )
    value = flat(x) @ flat(a)
    inside, outside = (flat(projection_halfspace(x, a, value + d)) for d in (1.0, -1.0))
    np.testing.assert_array_equal(inside, flat(x))
    assert outside @ flat(a) == pytest.approx(value - 1, abs=1e-3)
    assert np.isfinite(flat(projection_vector(x, jax.tree.map(np.zeros_like, a)))).all()


def test_an_affine_set_of_any_rank():
    x = point()
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 11))
    a = np.vstack([a, a[0] + a[1]])  # one equation twice
    b = a @ rng.normal(size=11)
    p = flat(jax.jit(projection_affine_set)(x, np.float32(a), np.float32(b)))
    np.testing.assert_allclose(p, flat(x) + np.linalg.pinv(a) @ (b - a @ flat(x)), atol=1e-4)


def test_boxes_take_scalars_and_trees():
    x = {"a": jnp.array([-2.0, 0.5, 2.0]), "b": jnp.float32(3.0)}
    p = projection_box(x, {"a": -1.0, "b": 0.0}, {"a": jnp.array([0.0, 1.0, 1.5]), "b": 2})
    np.testing.assert_allclose(p["a"], [-1.0, 0.5, 1.5])
    np.testing.assert_allclose(p["b"], 2.0)
    np.testing.assert_allclose(projection_box(x, 0, 1)["a"], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(projection_non_negative(x)["a"], [0.0, 0.5, 2.0])


def test_the_simplex_keeps_large_points_apart():
    p = projection_simplex(jnp.array([1e6, 1e6 + 0.5, -1e6]))
    np.testing.assert_allclose(p, [0.25, 0.75, 0.0])


@pytest.mark.parametrize("name", CONVEX)
def test_derivatives_against_differences(name, x64):
    project, _ = SETS[name]
    x = jnp.asarray(flat(point()))
    check_grads(functools.partial(project, scale=2.0), (x,), order=1)


@pytest.mark.parametrize("name", SETS)
def test_dtypes_and_empty_trees(name):
    project, _ = SETS[name]
    low = jax.tree.map(lambda x: np.asarray(x, jnp.bfloat16), point())
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(project(low, 2.0)))
    assert project({}, 2.0) == {}
    assert project(jnp.zeros((0, 3)), 2.0).shape == (0, 3)
    project(low, jnp.float32(2.0))


def test_every_public_name_is_a_projection():
    public = [n for n, f in vars(projections).items() if callable(f) and n.startswith("proj")]
    assert len(public) == 14


def test_what_is_inside_the_l1_ball_stays():
    inside = {"a": np.float32([0.25, -0.25]), "b": np.float32(0.125)}
    found = projections.projection_l1_ball(inside, 1.0)
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(np.all(x == y)), found, inside))
