import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnopt


def at_even(count):
    return count % 2 == 0


def run(optimizer, steps=4, **extras):
    params = {"w": jnp.ones(3)}
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    for i in range(steps):
        updates, state = step({"w": jnp.full(3, 1.0 + i)}, state, params, **extras)
        yield float(updates["w"][0]), state


def test_they_agree_with_optax(standard_numerics):
    for ours, theirs in (
        (fnopt.conditionally_transform, optax.conditionally_transform),
        (fnopt.conditionally_mask, optax.conditionally_mask),
    ):
        got = [u for u, _ in run(ours(fnopt.trace(0.9), at_even))]
        wanted = [u for u, _ in run(theirs(optax.trace(0.9), at_even))]
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_what_does_not_run_keeps_its_state():
    passed = list(run(fnopt.conditionally_transform(fnopt.trace(0.9), at_even)))
    assert [u for u, _ in passed][1::2] == [2.0, 4.0]
    masked = list(run(fnopt.conditionally_mask(fnopt.trace(0.9), at_even)))
    assert [u for u, _ in masked][1::2] == [0.0, 0.0]
    for steps in (passed, masked):
        a, b = (fnopt.tree_get(state, "trace")["w"] for _, state in steps[:2])
        np.testing.assert_array_equal(a, b)
        assert fnopt.step_count(steps[-1][1]) == 4


def test_the_condition_may_read_extra_arguments():
    small = fnopt.conditionally_mask(
        fnopt.scale(-1.0), lambda count, value: value < 1.0, forward_extra_args=True
    )
    assert [u for u, _ in run(small, 1, value=0.5)] == [-1.0]
    assert [u for u, _ in run(small, 1, value=2.0)] == [0.0]
