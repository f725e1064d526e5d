"""Compiler counts are deterministic, so the bounds on them are tests. Times are not asserted."""

import jax
import pytest

from fnopt.bench import costs, trees
from fnopt.bench.counts import count

CPU_ONLY = "the floor counts the loops of the CPU compiler"


# Where the floor of the plan is not met, and why.
ABOVE = {
    "schedule_free_adamw": 56,  # the average is kept, and never recovered from rounded params
    "accumulate 4 × adamw": 64,  # the mean of the gradients is read and written in each step
}


@pytest.mark.parametrize("name", costs.FLOOR)
def test_a_step_meets_the_floor(name):
    """Two layers of the transformer tree: the counts per parameter are those of twelve."""
    assert jax.devices()[0].platform == "cpu", CPU_ONLY
    optimizer = costs.configurations()[name].ours()
    found = count(optimizer, trees.transformer(layers=2))
    floor = (costs.FLOOR | ABOVE)[name]
    assert found.bytes <= floor + 0.4  # scalars, partial sums, rows and columns
    assert found.temporary <= (4.1 if name in ABOVE else 0.1)


def test_equal_leaves_are_traced_in_blocks():
    """The program of 48 equal layers grows with the root of their number, not with it."""
    import fnopt

    def equations(layers):
        tree = trees.transformer(layers, 64)
        optimizer = fnopt.adamw(1e-3)
        state = jax.eval_shape(optimizer.init, tree)

        def step(params, state, gradients):
            updates, state = optimizer.update(gradients, state, params)
            return fnopt.apply_updates(params, updates), state

        return len(jax.make_jaxpr(step)(tree, state, tree).eqns)

    assert equations(49) < 4 * equations(4)
