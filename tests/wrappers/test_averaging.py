import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.testing.oracles import trial


def descend(optimizer, steps=20, dtype=jnp.float32):
    params, gradients = trial(steps=steps)
    params = {k: jnp.asarray(p, dtype) for k, p in params.items()}
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        gradient = {k: jnp.asarray(g, dtype) for k, g in gradient.items()}
        updates, state = step(gradient, state, params)
        params = fnopt.apply_updates(params, updates)
        yield params, state


def averages(optimizer, iterates, **arguments):
    """eval_params after each step, beside the means written out in NumPy."""
    found = list(descend(optimizer, **arguments))
    theirs = iterates([{k: np.asarray(p, np.float64) for k, p in ps.items()} for ps, _ in found])
    for (params, state), wanted in zip(found, theirs, strict=True):
        yield fnopt.eval_params(state, params), wanted if wanted is not None else params


def start_of():
    return {k: np.asarray(np.float32(p), np.float64) for k, p in trial()[0].items()}


def ema(decay, debias):
    def run(iterates):
        mean = start_of()
        for t, params in enumerate(iterates, 1):
            b = min(decay, (1 + t) / (10 + t)) if debias else decay
            mean = {k: b * mean[k] + (1 - b) * params[k] for k in params}
            yield mean

    return run


def plain_mean(start, period):
    def run(iterates):
        chosen = []
        for t, params in enumerate(iterates, 1):
            if t > start and (t - start) % period == 0:
                chosen.append(params)
            yield {k: np.mean([c[k] for c in chosen], axis=0) for k in params} if chosen else None

    return run


INNER = fnopt.adam(0.1)
CASES = {
    "ema": (fnopt.ema_params(INNER, 0.9, debias=False), ema(0.9, False)),
    "ema warmed up": (fnopt.ema_params(INNER, 0.99), ema(0.99, True)),
    "swa": (fnopt.swa(INNER, 5, 3), plain_mean(5, 3)),
    "polyak": (fnopt.polyak_average(INNER), plain_mean(0, 1)),
    "polyak from a step": (fnopt.polyak_average(INNER, start=7), plain_mean(7, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_averages_are_those_written_out(name):
    optimizer, iterates = CASES[name]
    plain = list(descend(INNER))
    for (params, _), (alone, _) in zip(descend(optimizer), plain):
        jax.tree.map(np.testing.assert_array_equal, params, alone)
    for got, wanted in averages(optimizer, iterates):
        for k, w in wanted.items():
            np.testing.assert_allclose(got[k], w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_averages_of_bfloat16_params_are_float32(name):
    optimizer, _ = CASES[name]
    params, state = list(descend(optimizer, dtype=jnp.bfloat16))[-1]
    own = fnopt.tree_get(state, "average")
    assert {x.dtype for x in jax.tree.leaves(own)} == {jnp.dtype("float32")}
    evaluated = fnopt.eval_params(state, params)
    assert {x.dtype for x in jax.tree.leaves(evaluated)} == {jnp.dtype("bfloat16")}
    for k, x in evaluated.items():
        np.testing.assert_array_equal(x, own[k].astype(jnp.bfloat16))


def test_eval_params_reaches_through_a_partition_to_its_own_leaves():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2), "c": jnp.zeros(2), "n": 3}
    labels = {"a": "fast", "b": "slow", "c": "plain", "n": "plain"}
    optimizer = fnopt.accumulate(
        fnopt.partition(
            {
                "fast": fnopt.polyak_average(fnopt.sgd(1.0)),
                "slow": fnopt.ema_params(fnopt.sgd(1.0), 0.5, debias=False),
                "plain": fnopt.sgd(1.0),
            },
            labels,
        ),
        2,
    )
    state = optimizer.init(params)
    gradient = {"a": -jnp.ones(2), "b": -jnp.ones(2), "c": -jnp.ones(2), "n": 3}
    for _ in range(4):
        updates, state = optimizer.update(gradient, state, params)
        params = fnopt.apply_updates(params, updates)
    evaluated = fnopt.eval_params(state, params)
    assert [float(evaluated[k][0]) for k in "abc"] == [1.5, 1.25, 2.0]
    assert evaluated["n"] == 3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="swa: start must be at least 0 and period at least 1"):
        fnopt.swa(INNER, -1)
    with pytest.raises(ValueError, match="period at least 1"):
        fnopt.swa(INNER, 0, 0)
    with pytest.raises(ValueError, match="needs params"):
        fnopt.polyak_average(INNER).update(
            jnp.ones(2), fnopt.polyak_average(INNER).init(jnp.ones(2))
        )
