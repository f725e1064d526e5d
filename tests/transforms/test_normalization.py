import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.fusion import recompute
from fnopt.testing.oracles import descent, largest_error
from fnopt.transforms.normalization import (
    centralize,
    normalize_by_update_norm,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    scale_by_sign,
    scale_by_trust_ratio,
    trust_ratio,
)

FACTORIES = [
    scale_by_sign,
    normalize_by_update_norm,
    scale_by_trust_ratio,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    centralize,
]


def apply(transformation, updates, params=None):
    return transformation.update(updates, transformation.init(updates), params)[0]


def trees():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "bias": (3,), "gain": (), "empty": (0, 2)}
    return [
        {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
        for _ in range(2)
    ]


def norm(x):
    return np.sqrt(np.sum(np.square(x)))


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def leaf_by_leaf(f):
    return lambda g, theta: {k: f(g[k], theta[k]) for k in g}


def as_one(scale, eps):
    def direction(g, theta):
        size = norm([norm(x) for x in g.values()]) + eps
        return {k: scale * x / size if size else x for k, x in g.items()}

    return direction


def trusted(least=0.0, coefficient=1.0, eps=0.0):
    def direction(g, theta):
        p, u = max(norm(theta), least), max(norm(g), least)
        return g * (coefficient * p / (u + eps) if p and u else 1.0)

    return leaf_by_leaf(direction)


def centered(g, theta):
    """Each unit of the last axis by itself."""
    return np.stack([x - x.mean() for x in np.moveaxis(g, -1, 0)], -1) if g.ndim > 1 else g


RULES = [
    (scale_by_sign(), leaf_by_leaf(lambda g, theta: np.sign(g))),
    (normalize_by_update_norm(), as_one(1.0, 1e-6)),
    (normalize_by_update_norm(2.0, eps=0.5), as_one(2.0, 0.5)),
    (normalize_by_update_norm(eps=0.0), as_one(1.0, 0.0)),
    (scale_by_trust_ratio(), trusted()),
    (scale_by_trust_ratio(2.0, 0.5, 0.1), trusted(2.0, 0.5, 0.1)),
    (scale_by_param_block_norm(), leaf_by_leaf(lambda g, p: g * max(norm(p), 1e-3))),
    (scale_by_param_block_norm(1.5), leaf_by_leaf(lambda g, p: g * max(norm(p), 1.5))),
    (scale_by_param_block_rms(), leaf_by_leaf(lambda g, p: g * max(rms(p), 1e-3))),
    (scale_by_param_block_rms(0.8), leaf_by_leaf(lambda g, p: g * max(rms(p), 0.8))),
    (centralize(), leaf_by_leaf(centered)),
    (
        centralize(output_axis=0),
        leaf_by_leaf(lambda g, p: np.stack([x - x.mean() for x in g]) if g.ndim > 1 else g),
    ),
]


@pytest.mark.parametrize(("rule", "direction"), RULES, ids=[repr(r) for r, _ in RULES])
def test_oracle_in_float32(rule, direction):
    assert largest_error(fnopt.chain(rule, fnopt.sgd(0.02)), descent(direction, 0.02)) < 1e-6


@pytest.mark.parametrize(("rule", "direction"), RULES, ids=[repr(r) for r, _ in RULES])
def test_oracle_in_float64(rule, direction, x64):
    optimizer = fnopt.chain(rule, fnopt.sgd(0.02))
    assert largest_error(optimizer, descent(direction, 0.02), jnp.float64) < 1e-12


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_stateless_and_finite_at_zero(factory):
    updates, params = trees()
    rule = factory()
    assert rule.init(params) == ()
    zeros = jax.tree.map(jnp.zeros_like, updates)
    for p in (params, zeros):
        assert all((u == 0).all() for u in jax.tree.leaves(apply(rule, zeros, p)))

    def total(u):
        return sum(jnp.sum(x) for x in jax.tree.leaves(apply(rule, u, params)))

    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(jax.grad(total)(zeros)))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (scale_by_sign(), "scale_by_sign"),
        (normalize_by_update_norm(), "normalize_by_update_norm"),
        (scale_by_trust_ratio(), "scale_by_trust_ratio"),
        (scale_by_param_block_norm(), "scale_by_param_block_norm"),
        (scale_by_param_block_rms(), "scale_by_param_block_rms"),
        (centralize(output_axis=0), "centralize"),
    ],
    ids=str,
)
def test_agrees_with_optax(ours, theirs, standard_numerics):
    updates, params = [{k: x for k, x in t.items() if x.size} for t in trees()]
    got, wanted = apply(ours, updates, params), apply(getattr(optax, theirs)(), updates, params)
    for k in updates:
        np.testing.assert_allclose(got[k], wanted[k], rtol=1e-5)


def test_sign_of_complex_entries_is_their_direction():
    got = apply(scale_by_sign(), jnp.array([3 + 4j, 0j]))
    np.testing.assert_allclose(got, [0.6 + 0.8j, 0j], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_normalize_by_update_norm(size):
    updates = {"a": jnp.array([3 * size]), "b": jnp.array([4 * size])}
    got = apply(normalize_by_update_norm(2.0, 0.0), updates)
    np.testing.assert_allclose([got["a"][0], got["b"][0]], [1.2, 1.6], rtol=1e-5)
    got = apply(normalize_by_update_norm(eps=1.0), {"a": jnp.array([3.0, 4.0])})
    np.testing.assert_allclose(got["a"], [0.5, 4 / 6], rtol=1e-6)


def test_normalize_inside_shard_map():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    axis = jax.sharding.PartitionSpec("x")
    rule = normalize_by_update_norm(axis_name="x")
    y = jax.shard_map(lambda x: apply(rule, x), mesh=mesh, in_specs=axis, out_specs=axis)(
        jnp.arange(16.0)
    )
    np.testing.assert_allclose(jnp.linalg.norm(y), 1.0, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e20])
def test_trust_ratio_makes_a_step_a_fraction_of_the_weights(size):
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)}
    updates = {"a": jnp.array([size, 0.0]), "b": jnp.array([size, 0.0])}
    got = apply(scale_by_trust_ratio(trust_coefficient=0.1), updates, params)
    np.testing.assert_allclose(got["a"], [0.5, 0.0], rtol=1e-5)
    np.testing.assert_array_equal(got["b"], updates["b"])
    got = apply(scale_by_trust_ratio(min_norm=2.0), {"b": jnp.ones(1)}, {"b": jnp.zeros(1)})
    np.testing.assert_allclose(got["b"], 1.0)


@pytest.mark.parametrize("factory", [scale_by_trust_ratio, normalize_by_update_norm])
def test_what_is_not_a_number_stays_visible(factory):
    params = jnp.ones(2)
    for updates in (jnp.array([1.0, jnp.nan]), jnp.array([1.0, jnp.inf])):
        assert not jnp.isfinite(apply(factory(), updates, params)).all()


def test_block_norm_and_rms():
    params = {"a": jnp.full((2, 2), 3.0), "b": jnp.zeros(2)}
    ones = jax.tree.map(jnp.ones_like, params)
    got = apply(scale_by_param_block_norm(0.5), ones, params)
    np.testing.assert_allclose(got["a"], 6.0, rtol=1e-6)
    np.testing.assert_allclose(got["b"], 0.5, rtol=1e-6)
    got = apply(scale_by_param_block_rms(0.5), ones, params)
    np.testing.assert_allclose(got["a"], 3.0, rtol=1e-6)
    np.testing.assert_allclose(got["b"], 0.5, rtol=1e-6)


def test_centralize_takes_the_mean_of_each_output_unit():
    updates = {"w": jnp.array([[1.0, 2.0], [3.0, 6.0]]), "b": jnp.array([1.0, 2.0])}
    got = apply(centralize(), updates)
    np.testing.assert_allclose(got["w"], [[-1.0, -2.0], [1.0, 2.0]])
    np.testing.assert_array_equal(got["b"], updates["b"])


def test_optax_takes_the_first_axis_for_the_units(standard_numerics):
    kernel = jnp.array([[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_allclose(apply(optax.centralize(), kernel), [[-0.5, 0.5], [-1.5, 1.5]])


def test_recompute():
    x, k = jnp.array([3.0, 4.0]), jnp.float32(2.0)
    np.testing.assert_allclose(recompute(lambda x, k: k * x, x, 2.0), [6.0, 8.0])
    assert not jax.typeof(recompute(lambda k: k, k)).weak_type
    assert jax.typeof(recompute(lambda k: k, 2.0)).weak_type


def test_a_trust_ratio_shows_nan():
    for p, u in ((np.nan, 1.0), (1.0, np.nan)):
        assert np.isnan(trust_ratio(jnp.float32(p), jnp.float32(u)))
    assert trust_ratio(jnp.float32(0.0), jnp.float32(2.0)) == 1.0
    assert trust_ratio(jnp.float32(2.0), jnp.float32(0.0)) == 1.0
