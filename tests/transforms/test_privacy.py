import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.transforms.privacy import (
    differentially_private_aggregate,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
)


def gradients(examples=6, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"w": (4, 3), "b": (3,), "c": ()}
    draw = {k: rng.normal(size=(examples, *s)) for k, s in shapes.items()}
    return {k: np.float32(x) for k, x in draw.items()}


def clipped(g, limit):
    """By a loop over the examples."""
    total, count = {k: 0.0 for k in g}, 0
    for i in range(6):
        one = {k: np.asarray(x[i], np.float64) for k, x in g.items()}
        norm = np.sqrt(sum(np.sum(x**2) for x in one.values()))
        count += norm > limit
        total = {k: total[k] + x * min(1, limit / norm) for k, x in one.items()}
    return total, count


@pytest.mark.parametrize("limit", [1e9, 4.0, 1.0])
def test_examples_are_clipped_by_their_own_norm(limit, standard_numerics):
    g = gradients()
    ours, count = jax.jit(per_example_global_norm_clip)(g, limit)
    wanted, wanted_count = clipped(g, limit)
    assert count == wanted_count
    peer, peer_count = jax.jit(optax.per_example_global_norm_clip)(jax.tree.leaves(g), limit)
    assert count == peer_count
    for k, p in zip(sorted(g), peer):
        np.testing.assert_allclose(ours[k], wanted[k], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours[k], p, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("uniform", [True, False])
def test_leaves_are_clipped_alone(uniform, standard_numerics):
    g = gradients()
    ours, counts = jax.jit(lambda g: per_example_layer_norm_clip(g, 2.0, uniform))(g)
    peer, peer_counts = jax.jit(lambda g: optax.per_example_layer_norm_clip(g, 2.0, uniform))(g)
    for k in g:
        np.testing.assert_allclose(ours[k], peer[k], rtol=1e-5, atol=1e-5)
        assert counts[k] == peer_counts[k]


def test_long_zero_and_low_precision_gradients():
    g = {"w": jnp.array([[1e20, 0.0], [0.0, 0.0], [3.0, 4.0]])}
    np.testing.assert_allclose(per_example_global_norm_clip(g, 1.0)[0]["w"], [1.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(per_example_global_norm_clip(g, 0.0)[0]["w"], [0.0, 0.0])
    many = jnp.ones((1000, 2), jnp.bfloat16)
    np.testing.assert_allclose(per_example_global_norm_clip(many, 9.0)[0], 1000.0)


def test_a_missing_batch_axis_is_named():
    for bad in ({"w": jnp.ones(3), "b": jnp.ones(())}, {"w": jnp.ones(3), "b": jnp.ones(2)}):
        with pytest.raises(ValueError, match="batch axis"):
            per_example_global_norm_clip(bad, 1.0)


def test_the_aggregate_is_the_mean_and_noise_of_the_stated_size():
    def aggregate(**setting):
        transformation = differentially_private_aggregate(**setting)
        params = {k: x[0] for k, x in g.items()}
        return transformation.update(g, transformation.init(params), params)[0]

    g = gradients()
    quiet = aggregate(l2_norm_clip=2.0, noise_multiplier=0.0, key=0)
    for k, x in clipped(g, 2.0)[0].items():
        np.testing.assert_allclose(quiet[k], x / 6, rtol=1e-5, atol=1e-6)
    g = {"w": jnp.zeros((6, 20_000))}
    noise = aggregate(l2_norm_clip=2.0, noise_multiplier=1.5, key=0)["w"]
    assert np.std(noise) == pytest.approx(2.0 * 1.5 / 6, rel=0.03)
    same = aggregate(l2_norm_clip=2.0, noise_multiplier=1.5, key=jax.random.key(0))["w"]
    np.testing.assert_array_equal(noise, same)


def test_each_step_draws_anew_and_keys_are_the_users():
    g = {"w": jnp.zeros((2, 5))}
    rule = differentially_private_aggregate(1.0, 1.0, seed=1)
    first, state = rule.update(g, rule.init(g))
    second, _ = rule.update(g, state)
    assert np.abs(first["w"] - second["w"]).min() > 0
    assert fnopt.tree_get(state, "count") == 1
    with pytest.raises(ValueError, match="give one of key"):
        differentially_private_aggregate(1.0, 1.0)


def test_the_boundary_knows_the_batch_axis():
    private = fnopt.chain(fnopt.clip(10.0), fnopt.dpsgd(0.1, 1.0, 0.0, seed=0, momentum=0.9))
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(()), "n": 3}
    state = private.init(params)
    good = {"w": jnp.ones((2, 4, 3)), "b": jnp.ones(2), "n": 3}
    for given in ((good, state, params), (good, state)):
        updates, _ = private.update(*given)
        assert updates["w"].shape == (4, 3)
        assert updates["b"].shape == ()
        assert updates["n"] == 3
    whole = {"w": jnp.ones((4, 3)), "b": jnp.ones(()), "n": 3}
    with pytest.raises(ValueError, match=r"one example's is \(\)"):
        private.update(whole, state, params)
    uneven = {"w": jnp.ones((2, 4, 3)), "b": jnp.ones(3), "n": 3}
    with pytest.raises(ValueError, match="batch axis in front"):
        private.update(uneven, state, params)


def shortened(g, bounds):
    """The sum of the examples, leaf k of each scaled to `bounds[k]` of its own norm."""
    return {
        k: sum(x[i] * min(1, bounds[k] / np.linalg.norm(x[i])) for i in range(len(x)))
        for k, x in g.items()
    }


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("limit", [2.0, 0.5])
@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-6), (jnp.float64, 1e-12)])
def test_leaves_against_an_oracle(uniform, limit, dtype, bound):
    with jax.enable_x64(dtype == jnp.float64):
        g = {k: np.asarray(x, np.float64) for k, x in gradients().items()}
        entries = {k: x[0].size for k, x in g.items()}
        part = {k: 1 / len(g) if uniform else n / sum(entries.values()) for k, n in entries.items()}
        wanted = shortened(g, {k: limit * share**0.5 for k, share in part.items()})
        given = {k: jnp.asarray(x, dtype) for k, x in g.items()}
        got, _ = per_example_layer_norm_clip(given, limit, uniform)
        whole, _ = per_example_global_norm_clip(given, limit)
        for k in g:
            assert np.linalg.norm(np.asarray(got[k], np.float64) - wanted[k]) < bound * limit
            error = np.asarray(whole[k], np.float64) - clipped(g, limit)[0][k]
            assert np.linalg.norm(error) < bound * limit
