import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.testing.oracles import largest_error, leafwise, trial
from fnopt.transforms.decay import (
    DECAYS,
    add_cautious_weight_decay,
    add_decayed_weights,
    add_independent_weight_decay,
    add_weight_decay_to_start,
    no_decay_on_vectors,
)

RATE = 0.02


def adam_with(coupled=None, pull=None, rest=None):
    """The oracle of Adam with a pull on the gradient, on its update, or on the weights."""

    @leafwise
    def run(theta, gradients):
        start, m, v = theta, 0 * theta, 0 * theta
        for t, g in enumerate(gradients, 1):
            if coupled:
                g = g + coupled(theta, start)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            step = RATE * (u + pull(theta, start, u)) if pull else RATE * u
            theta = theta - step - (rest(theta, t) if rest else 0.0)
            yield theta

    return run


RULE, RATED = fnopt.scale_by_adam(), fnopt.scale_by_learning_rate(RATE)
HALVING = fnopt.exponential_decay(0.1, 10, 0.5)

KINDS = {
    "coupled": (
        fnopt.chain(add_decayed_weights(0.3), RULE, RATED),
        adam_with(coupled=lambda theta, start: 0.3 * theta),
    ),
    "decoupled": (
        fnopt.chain(RULE, add_decayed_weights(0.3), RATED),
        adam_with(pull=lambda theta, start, u: 0.3 * theta),
    ),
    "cautious": (
        fnopt.chain(RULE, add_cautious_weight_decay(0.3), RATED),
        adam_with(pull=lambda theta, start, u: 0.3 * theta * (u * theta >= 0)),
    ),
    "independent": (
        fnopt.chain(RULE, RATED, add_independent_weight_decay(0.1)),
        adam_with(rest=lambda theta, t: 0.1 * theta),
    ),
    "independent, scheduled": (
        fnopt.chain(RULE, RATED, add_independent_weight_decay(HALVING)),
        adam_with(rest=lambda theta, t: 0.1 * 0.5 ** ((t - 1) / 10) * theta),
    ),
    "to the start, coupled": (
        fnopt.chain(add_weight_decay_to_start(0.3), RULE, RATED),
        adam_with(coupled=lambda theta, start: 0.3 * (theta - start)),
    ),
    "to the start, decoupled": (
        fnopt.chain(RULE, add_weight_decay_to_start(0.3), RATED),
        adam_with(pull=lambda theta, start, u: 0.3 * (theta - start)),
    ),
    "adamw": (
        fnopt.adamw(RATE, weight_decay=0.3),
        adam_with(pull=lambda theta, start, u: 0.3 * theta),
    ),
    "adamw, cautious": (
        fnopt.adamw(RATE, weight_decay=0.3, decay="cautious"),
        adam_with(pull=lambda theta, start, u: 0.3 * theta * (u * theta >= 0)),
    ),
    "adamw, independent": (
        fnopt.adamw(RATE, weight_decay=0.1, decay="independent"),
        adam_with(rest=lambda theta, t: 0.1 * theta),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_oracle_in_float32(kind):
    optimizer, oracle = KINDS[kind]
    assert largest_error(optimizer, oracle) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_oracle_in_float64(kind, x64):
    optimizer, oracle = KINDS[kind]
    assert largest_error(optimizer, oracle, jnp.float64) < 1e-12


@pytest.mark.parametrize("before", [True, False])
def test_add_decayed_weights_agrees_with_optax_on_either_side_of_the_rule(
    before, standard_numerics
):
    def made(library):
        decay = library.add_decayed_weights(0.3)
        members = [library.scale_by_adam(), library.scale_by_learning_rate(RATE)]
        return library.chain(*([decay, *members] if before else [members[0], decay, members[1]]))

    params, gradients = jax.tree.map(jnp.float32, trial())
    ends = []
    for library in (fnopt, optax):
        optimizer, moved = made(library), params
        state = optimizer.init(params)
        for g in gradients:
            updates, state = optimizer.update(g, state, moved)
            moved = library.apply_updates(moved, updates)
        ends.append(moved)
    for k in params:
        np.testing.assert_allclose(ends[0][k], ends[1][k], rtol=1e-4, atol=1e-6)


FACTORIES = [
    add_decayed_weights,
    add_cautious_weight_decay,
    add_independent_weight_decay,
    add_weight_decay_to_start,
]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize(
    "mask", [{"w": True, "b": False}, no_decay_on_vectors, lambda p: {"w": True, "b": False}]
)
def test_masks(factory, mask):
    start = {"w": jnp.full((2, 2), 2.0), "b": jnp.full(2, 2.0)}
    zero = jax.tree.map(jnp.zeros_like, start)
    rule = factory(0.5, mask)
    state = rule.init(start)
    moved = jax.tree.map(lambda p: p + 1, start)
    updates, state = rule.update(zero, state, moved)
    assert np.all(updates["w"] != 0)
    assert not np.any(updates["b"])
    kept = [x.shape for x in jax.tree.leaves(state)]
    assert kept == ([(2, 2)] if factory is add_weight_decay_to_start else [])


@pytest.mark.parametrize("factory", FACTORIES)
def test_without_decay_nothing_is_read_and_nothing_kept(factory):
    rule = factory(0.0)
    assert not jax.tree.leaves(rule.init(jnp.ones(2)))
    updates, _ = rule.update(jnp.ones(2), rule.init(jnp.ones(2)), jnp.full(2, jnp.nan))
    np.testing.assert_array_equal(updates, 1.0)


def test_cautious_where_the_product_vanishes_and_of_complex_entries():
    rule = add_cautious_weight_decay(0.5)
    u, p = jnp.array([1e-30, 1e-30, 0.0, 1.0]), jnp.array([1e-30, -1e-30, 2.0, 0.0])
    updates, _ = rule.update(u, rule.init(p), p)
    np.testing.assert_allclose(updates, [1.5e-30, 1e-30, 1.0, 1.0])
    u, p = jnp.array([1.0 + 0j, 1.0 + 0j]), jnp.array([2.0 + 4j, -2.0 + 4j])
    updates, _ = rule.update(u, rule.init(p), p)
    np.testing.assert_allclose(updates, [2.0 + 2j, 1.0])


def test_the_rate_does_not_scale_the_independent_decay():
    params, zero = jnp.full(3, 4.0), jnp.zeros(3)
    for optimizer in (fnopt.adamw, fnopt.lion):
        for rate in (0.0, 0.1, 1.0):
            built = optimizer(rate, weight_decay=0.01, decay="independent")
            updates, _ = built.update(zero, built.init(params), params)
            np.testing.assert_allclose(updates, -0.04)
            built = optimizer(rate, weight_decay=0.01)
            updates, _ = built.update(zero, built.init(params), params)
            np.testing.assert_allclose(updates, -0.04 * rate)


def test_the_kinds_of_an_optimizer():
    assert DECAYS == ("decoupled", "cautious", "independent")
    assert fnopt.lion(1e-3) == fnopt.lion(1e-3, decay="decoupled")
    params, gradient = jnp.array([1.0, -1.0]), jnp.ones(2)
    lion = fnopt.lion(0.1, weight_decay=0.5, decay="cautious")
    updates, _ = lion.update(gradient, lion.init(params), params)
    np.testing.assert_allclose(updates, [-0.15, -0.1])
    for factory in (fnopt.adamw, fnopt.lion):
        with pytest.raises(ValueError, match=f"{factory.__name__}: decay must be one of decoupled"):
            factory(1e-3, decay="l2")
    with pytest.raises(ValueError, match=r"weight_decay must be in \[0, 1\]"):
        fnopt.adamw(1e-3, weight_decay=2.0, decay="independent")


def test_a_tunable_decay_keeps_its_name():
    optimizer = fnopt.adamw(0.1, weight_decay=fnopt.Tunable(0.25), decay="independent")
    params, zero = jnp.ones(2), jnp.zeros(2)
    state = fnopt.set_hyperparameters(optimizer.init(params), weight_decay=0.5)
    updates, _ = optimizer.update(zero, state, params)
    np.testing.assert_allclose(updates, -0.5)


def test_no_decay_on_vectors_counts_no_axis_of_layers():
    params = {
        "layers": {"kernel": jnp.ones((3, 4, 4)), "bias": jnp.ones((3, 4)), "gain": jnp.ones(3)},
        "head": jnp.ones((4, 2)),
        "steps": 3,
    }
    plain = {"layers": {"kernel": True, "bias": True, "gain": False}, "head": True, "steps": False}
    assert no_decay_on_vectors(params) == plain
    stacks = {"layers": True, "head": False, "steps": False}
    stacked = functools.partial(no_decay_on_vectors, stacked=stacks)
    plain["layers"]["bias"] = False
    assert stacked(params) == plain
    optimizer = fnopt.adamw(0.1, weight_decay=0.5, mask=stacked)
    assert optimizer == fnopt.adamw(0.1, weight_decay=0.5, mask=stacked)
    zero = jax.tree.map(jnp.zeros_like, params) | {"steps": None}
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert not np.any(updates["layers"]["bias"])
    assert np.all(updates["head"] < 0)
