import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import fnopt
from fnopt.testing.oracles import descent, largest_error


def apply(transformation, updates, params=None):
    return transformation.update(updates, transformation.init(updates), params)[0]


# The global norm: true in every dtype


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_norm_of_thousands_of_leaves(dtype):
    tree = [jnp.asarray(np.ones((16, 16)), dtype)] * 2_500
    assert fnopt.global_norm(tree) == 800.0


@pytest.mark.parametrize("size", [1e30, 1e20, 1.0, 1e-20, 1e-30, 1e-37])
def test_norm_of_large_and_small_values(size):
    tree = {"a": np.full(3, 3 * size, np.float32), "b": np.float32(3 * size)}
    np.testing.assert_allclose(fnopt.global_norm(tree) / size, 6.0, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(fnopt.global_norm)(tree) / size, 6.0, rtol=1e-5)


def test_norm_of_large_half_precision_values():
    np.testing.assert_allclose(fnopt.global_norm(jnp.full(4, 60_000, jnp.float16)), 120_000)


def test_norm_of_a_long_sum():
    """Ten million equal entries add up, where a sequential float32 sum would stop."""
    np.testing.assert_allclose(fnopt.global_norm(jnp.full(10**7, 1e-3)) ** 2, 10.0, rtol=1e-5)


def test_norm_at_its_limits():
    assert fnopt.global_norm({}) == 0
    assert fnopt.global_norm({"a": None, "i": jnp.arange(3), "e": jnp.zeros((0, 2))}) == 0
    assert fnopt.global_norm([jnp.zeros(3)]) == 0
    assert fnopt.global_norm([jnp.array([1.0, jnp.inf])]) == jnp.inf
    assert jnp.isnan(fnopt.global_norm([jnp.array([1.0, jnp.nan])]))
    np.testing.assert_allclose(fnopt.global_norm(jnp.array([3 + 4j, 0j])), 5.0)


def test_norm_in_double(x64):
    tree = [jnp.full(4, 1e200), jnp.zeros(2, jnp.bfloat16), jnp.zeros(1, jnp.complex64)]
    got = fnopt.global_norm(tree)
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, 2e200, rtol=1e-12)


def test_norm_has_a_derivative_everywhere():
    slope = jax.jit(jax.grad(fnopt.global_norm))
    np.testing.assert_allclose(slope(np.float32([3.0, 4.0])), [0.6, 0.8])
    np.testing.assert_array_equal(slope(np.zeros(2, np.float32)), 0.0)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(fnopt.global_norm))(np.diag(np.float32([0, 1, 2]))), [0, 1, 2]
    )


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_norm_of_sharded_leaves(kind):
    axis_type = getattr(jax.sharding.AxisType, kind)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(axis_type,) * 2)
    x = jnp.arange(32.0).reshape(8, 4)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("x", "y")))
    np.testing.assert_allclose(fnopt.global_norm(sharded), fnopt.global_norm(x), rtol=1e-6)


def test_norm_and_clip_inside_shard_map():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jnp.arange(16.0)
    clipped = fnopt.clip_by_global_norm(1.0, axis_name="x")

    def local(x):
        return fnopt.global_norm(x, axis_name="x"), apply(clipped, x)

    run = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=PartitionSpec("x"),
        out_specs=(PartitionSpec(), PartitionSpec("x")),
    )
    norm, y = jax.jit(run)(x)
    np.testing.assert_allclose(norm, np.linalg.norm(np.arange(16.0)), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(y), 1.0, rtol=1e-6)


# Clips


def global_norm(g):
    return np.sqrt(sum(np.sum(x**2) for x in g.values()))


def rms(x):
    return np.sqrt(np.mean(x**2))


def unit_by_unit(g, theta, clipping, eps):
    """A unit is a whole vector or scalar, and here each column over the first axis."""
    out = np.zeros_like(g)
    for unit in np.ndindex(g.shape[1:]) if g.ndim > 1 else [()]:
        at = (slice(None), *unit) if g.ndim > 1 else ...
        most = clipping * max(np.sqrt(np.sum(theta[at] ** 2)), eps)
        size = np.sqrt(np.sum(g[at] ** 2))
        out[at] = g[at] * (most / size if size > most else 1.0)
    return out


def leaf_by_leaf(f):
    return lambda g, theta: {k: f(g[k], theta[k]) for k in g}


def clipped_by_norm(most):
    return lambda g, theta: {k: x * min(1, most / (global_norm(g) or 1)) for k, x in g.items()}


CLIPS = [
    (fnopt.clip(0.5), leaf_by_leaf(lambda g, p: np.clip(g, -0.5, 0.5))),
    (fnopt.clip(2.0), leaf_by_leaf(lambda g, p: np.clip(g, -2.0, 2.0))),
    (fnopt.clip_by_global_norm(1.0), clipped_by_norm(1.0)),
    (fnopt.clip_by_global_norm(5.5), clipped_by_norm(5.5)),
    (fnopt.clip_by_block_rms(1.0), leaf_by_leaf(lambda g, p: g / max(1, rms(g)))),
    (fnopt.clip_by_block_rms(0.3), leaf_by_leaf(lambda g, p: g / max(1, rms(g) / 0.3))),
    (fnopt.adaptive_grad_clip(0.3), leaf_by_leaf(lambda g, p: unit_by_unit(g, p, 0.3, 1e-3))),
    (
        fnopt.adaptive_grad_clip(1.0, eps=0.8),
        leaf_by_leaf(lambda g, p: unit_by_unit(g, p, 1.0, 0.8)),
    ),
]


@pytest.mark.parametrize(("clip", "direction"), CLIPS, ids=[repr(c) for c, _ in CLIPS])
def test_oracle_in_float32(clip, direction):
    assert largest_error(fnopt.chain(clip, fnopt.sgd(0.1)), descent(direction, 0.1)) < 1e-6


@pytest.mark.parametrize(("clip", "direction"), CLIPS, ids=[repr(c) for c, _ in CLIPS])
def test_oracle_in_float64(clip, direction, x64):
    optimizer = fnopt.chain(clip, fnopt.sgd(0.1))
    assert largest_error(optimizer, descent(direction, 0.1), jnp.float64) < 1e-12


def test_clip_by_global_norm():
    updates = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    np.testing.assert_allclose(apply(fnopt.clip_by_global_norm(1.0), updates)["a"], 0.6)
    np.testing.assert_array_equal(apply(fnopt.clip_by_global_norm(9.0), updates)["a"], 3.0)
    np.testing.assert_array_equal(apply(fnopt.clip_by_global_norm(1.0), jnp.zeros(3)), 0.0)


@pytest.mark.parametrize("value", [jnp.inf, jnp.nan])
def test_a_clip_does_not_hide_what_is_not_finite(value):
    assert not jnp.isfinite(apply(fnopt.clip_by_global_norm(1.0), jnp.array([1.0, value]))[1])


def test_clip_of_huge_gradients_keeps_the_direction():
    got = apply(fnopt.clip_by_global_norm(1.0), jnp.array([3e20, 4e20]))
    np.testing.assert_allclose(got, [0.6, 0.8], rtol=1e-6)


def test_clip_by_value():
    np.testing.assert_array_equal(
        apply(fnopt.clip(1.0), jnp.array([-3.0, 0.5, 2.0])), [-1.0, 0.5, 1.0]
    )
    np.testing.assert_allclose(apply(fnopt.clip(1.0), jnp.array([3 + 4j])), [0.6 + 0.8j])


def test_clip_by_block_rms():
    updates = {"a": jnp.full((2, 2), 4.0), "b": jnp.full(3, 0.5)}
    got = apply(fnopt.clip_by_block_rms(1.0), updates)
    np.testing.assert_allclose(got["a"], 1.0)
    np.testing.assert_allclose(got["b"], 0.5)


def test_adaptive_grad_clip_bounds_each_column():
    params = {"w": jnp.array([[3.0, 0.0], [4.0, 0.0]]), "b": jnp.array([0.6, 0.8])}
    updates = {"w": jnp.array([[30.0, 1e-5], [40.0, 0.0]]), "b": jnp.array([0.0, 9.0])}
    clip = fnopt.adaptive_grad_clip(0.1, eps=1e-3)
    got = jax.jit(lambda u, p: apply(clip, u, p))(updates, params)
    np.testing.assert_allclose(np.linalg.norm(got["w"], axis=0), [0.5, 1e-5], rtol=1e-5)
    np.testing.assert_allclose(got["b"], [0.0, 0.1], rtol=1e-5)


def test_the_units_are_optaxs(standard_numerics):
    rng = np.random.default_rng(0)
    shapes = [(5,), (1, 5), (1, 1, 1, 5), (4, 3), (2, 4, 3), (3, 3, 2, 4)]
    draw = lambda: {str(s): np.float32(rng.normal(size=s)) for s in shapes}

    @jax.jit
    def both(params, updates):
        return [
            {
                f"{shape}, axis {axis}": apply(
                    library.adaptive_grad_clip(0.1, axis=axis), update, params[shape]
                )
                for shape, update in updates.items()
                for axis in (None, 0, -1)
            }
            for library in (fnopt, optax)
        ]

    got, wanted = both(draw(), draw())
    assert len(got) == 18
    off = [k for k, x in got.items() if not np.allclose(x, wanted[k], rtol=1e-5, atol=0)]
    assert off == []
