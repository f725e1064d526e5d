import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.projections import projection_box, projection_l2_ball, projection_simplex
from fnopt.testing.oracles import largest_error
from fnopt.transforms.constraints import add_noise, keep_params_nonnegative, project, zero_nans


def held(place, rate=0.1):
    """Gradient descent whose params, a dict of leaves, are put in their place after each step."""

    def run(start, gradients):
        x = start
        for g in gradients:
            x = place({k: theta - rate * g[k] for k, theta in x.items()})
            yield x

    return run


def in_ball(x, radius):
    size = np.sqrt(sum(np.sum(v**2) for v in x.values()))
    return {k: v * min(1.0, radius / size) for k, v in x.items()}


def each(f):
    return lambda x: {k: f(v) for k, v in x.items()}


HOLDS = [
    (keep_params_nonnegative(), each(lambda v: np.maximum(v, 0))),
    (project(projection_l2_ball), lambda x: in_ball(x, 1.0)),
    (
        project(functools.partial(projection_l2_ball, scale=2.5), per_leaf=True),
        each(lambda v: in_ball({"v": v}, 2.5)["v"]),
    ),
    (project(functools.partial(projection_box, lower=-0.5, upper=0.7)),
     each(lambda v: np.clip(v, -0.5, 0.7))),
]  # fmt: skip


@pytest.mark.parametrize(("hold", "place"), HOLDS, ids=["keep", "ball", "balls", "box"])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_oracle(hold, place, dtype, bound, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    optimizer = fnopt.chain(fnopt.sgd(0.1), hold)
    assert largest_error(optimizer, held(place), dtype) < bound


def test_params_end_at_zero_or_above(standard_numerics):
    params = {"w": jnp.array([1.0, 0.5, 2.0]), "low": jnp.bfloat16(0.3), "c": jnp.complex64(1j)}
    updates = {"w": jnp.array([-2.0, 0.1, jnp.nan]), "low": jnp.bfloat16(-1), "c": jnp.complex64(1)}
    u, _ = keep_params_nonnegative().update(updates, (), params)
    after = fnopt.apply_updates(params, u)
    np.testing.assert_allclose(after["w"], [0.0, 0.6, np.nan], rtol=1e-6)
    assert after["low"] == 0
    assert after["c"] == 1 + 1j
    del params["c"], updates["c"]
    peer, _ = optax.keep_params_nonnegative().update(updates, optax.EmptyState(), params)
    np.testing.assert_allclose(u["w"][:2], peer["w"][:2])


def test_a_projection_holds_the_params_through_training():
    ball = functools.partial(projection_l2_ball, scale=0.5)
    optimizer = fnopt.chain(fnopt.sgd(0.3), project(ball))
    params = {"a": jnp.ones((2, 2)), "b": None, "c": jnp.ones(3)}
    state = optimizer.init(params)
    for _ in range(10):
        updates, state = optimizer.update(jax.tree.map(lambda p: p - 3.0, params), state, params)
        params = fnopt.apply_updates(params, updates)
    assert fnopt.global_norm(params) == pytest.approx(0.5, rel=1e-5)


def test_a_projection_keeps_the_updates_of_entries_it_leaves():
    params = {"w": jnp.array([1.0, -2.0, 0.5])}
    updates = {"w": jnp.array([1e-20, 5.0, -1.0])}
    u, _ = project(lambda t: jax.tree.map(lambda x: jnp.clip(x, 0.0, 2.0), t)).update(
        updates, (), params
    )
    np.testing.assert_array_equal(u["w"], np.float32([1e-20, 4.0, -0.5]))


def test_leaves_may_be_projected_one_by_one():
    rows = jax.vmap(projection_simplex)
    params = {"a": jnp.ones((2, 3)), "b": jnp.zeros((4, 5))}
    updates = jax.tree.map(jnp.zeros_like, params)
    u, _ = project(rows, per_leaf=True).update(updates, (), params)
    for p in jax.tree.leaves(fnopt.apply_updates(params, u)):
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)


def test_nans_become_zero_and_are_reported():
    params = {"a": jnp.ones((2, 2)), "b": jnp.float32(1), "c": None}
    state = zero_nans().init(params)
    updates = {"a": jnp.array([[1.0, jnp.nan], [jnp.inf, 2.0]]), "b": jnp.float32(3), "c": None}
    u, state = zero_nans().update(updates, state)
    np.testing.assert_array_equal(u["a"], [[1.0, 0.0], [np.inf, 2.0]])
    found = fnopt.tree_get(state, "found_nan")
    assert bool(found["a"]) is True
    assert bool(found["b"]) is False
    _, state = zero_nans().update(params, state)
    assert not fnopt.tree_get(state, "found_nan")["a"]


def test_noise_has_the_variance_that_falls():
    noise = add_noise(4.0, 2.0, key=0)
    zeros = {"a": jnp.zeros(20_000), "b": jnp.zeros((100, 200))}
    state = noise.init(zeros)
    first, state = noise.update(zeros, state)
    second, _ = noise.update(zeros, state)
    for name in zeros:
        assert np.std(first[name]) == pytest.approx(2.0, rel=0.05)
        assert np.std(second[name]) == pytest.approx(1.0, rel=0.05)
    draws = [first["a"], first["b"].ravel(), second["a"], second["b"].ravel()]
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.05


def test_noise_is_a_function_of_the_key_and_the_count():
    zeros = jnp.zeros(5)
    runs = [
        add_noise(1.0, 0.5, key).update(zeros, add_noise(1.0, 0.5, key).init(zeros))[0]
        for key in (1, jax.random.key(1), jax.random.key(2))
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).min() > 0
    assert add_noise(1.0, 0.5, seed=3) == add_noise(1.0, 0.5, seed=3)


def test_keys_are_the_users():
    with pytest.raises(ValueError, match="give one of key"):
        add_noise(1.0, 0.5)
    with pytest.raises(ValueError, match="give one of key"):
        add_noise(1.0, 0.5, 1, seed=1)
