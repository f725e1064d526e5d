"""Whether a step in a narrow dtype has the arithmetic of float32, read from its trace.

A step whose state is wide, whose operations on narrow floats only move or cast them, and which
rounds to a narrow dtype once for each leaf that it returns, computes what the float32 step does on
the same numbers. Laws about narrow dtypes then follow from the run in float32.
"""

from __future__ import annotations

import functools
from typing import Any

import jax

from fnopt import leaves
from fnopt.testing.laws.subject import FEW, Subject, gradients_of, operations, params_of

MOVES = {
    *("broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "expand_dims"),
    *("dynamic_slice", "dynamic_update_slice", "reshape", "rev", "select_n", "slice", "squeeze"),
    *("closed_call", "cond", "custom_jvp_call", "custom_vjp_call", "jit", "pjit", "scan", "while"),
    *("optimization_barrier", "transpose"),
}
"""Operations that compute nothing from the numbers that they are given."""


def is_narrow(x: Any) -> bool:
    """Whether an array, abstract or not, is of a narrow float dtype."""
    dtype = getattr(x, "dtype", None)
    return dtype is not None and leaves.is_narrow(dtype)


@functools.lru_cache(maxsize=8)
def stays_wide(subject: Subject, dtype: Any) -> bool:
    """Whether a step with params and gradients of a narrow dtype has the arithmetic of float32."""
    params, gradients = params_of(dtype, FEW), gradients_of(dtype, shapes=FEW)
    state = jax.eval_shape(subject.init, params)
    if any(is_narrow(x) for x in jax.tree.leaves(state)):
        return False
    traced = jax.make_jaxpr(subject.traced, return_shape=True)
    jaxpr, results = traced(gradients, state, params)
    roundings = 0
    for equation in operations(jaxpr.jaxpr):
        given = [is_narrow(x.aval) for x in equation.invars]
        made = [is_narrow(x.aval) for x in equation.outvars]
        name = equation.primitive.name
        if any(given + made) and name not in MOVES:
            return False
        roundings += name == "convert_element_type" and made[0] and not given[0]
    return roundings <= sum(is_narrow(x) for x in jax.tree.leaves(results))
