"""What the compiler says of one step: bytes, temporary memory, and the times to get there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt.apply import apply_updates
from fnopt.bench import trees
from fnopt.leaves import nbytes


class Count(NamedTuple):
    """The cost of one compiled `update` + `apply_updates` with params and state donated.

    Attributes:
      bytes: bytes accessed per parameter, by the compiler's cost analysis.
      temporary: bytes of temporary memory per parameter.
      state: bytes of state per parameter.
      trace: processor seconds to trace, of all threads, as those that follow.
      lower: to lower.
      compile: to compile.
    """

    bytes: float
    temporary: float
    state: float
    trace: float
    lower: float
    compile: float


def count(
    optimizer: Any,
    tree: Any,
    apply: Callable[..., Any] = apply_updates,
    compiled: bool = True,
    gradients: Any = None,
    extras: Mapping[str, Any] | None = None,
) -> Count:
    """Counts one step of an optimizer, fnopt's or another's, on a tree of abstract params.

    Args:
      optimizer: a transformation.
      tree: the params' shapes.
      apply: (params, updates) -> params.
      compiled: whether to compile; else only the state and the first two times are counted.
      gradients: their shapes, if they are not the params'.
      extras: the extra arguments of its update: abstract arrays, and functions.
    """
    state = jax.eval_shape(optimizer.init, tree)
    n = trees.size(tree)

    functions = {k: v for k, v in (extras or {}).items() if callable(v)}
    arrays = {k: v for k, v in (extras or {}).items() if k not in functions}

    def step(params: Any, state: Any, gradients: Any, arrays: Any) -> Any:
        updates, state = optimizer.update(gradients, state, params, **arrays, **functions)
        return apply(params, updates), state

    start = time.process_time()
    traced = jax.jit(step, donate_argnums=(0, 1)).trace(
        tree, state, tree if gradients is None else gradients, arrays
    )
    t1 = time.process_time()
    lowered = traced.lower()
    t2 = time.process_time()
    state_bytes = sum(map(nbytes, jax.tree.leaves(state))) / n
    if not compiled:
        return Count(0.0, 0.0, state_bytes, t1 - start, t2 - t1, 0.0)
    program = lowered.compile()
    t3 = time.process_time()
    analysis = program.cost_analysis()
    memory = program.memory_analysis()
    return Count(
        analysis["bytes accessed"] / n,
        memory.temp_size_in_bytes / n,
        state_bytes,
        t1 - start,
        t2 - t1,
        t3 - t2,
    )


def needs(optimizer: Any, tree: Any) -> dict[str, Any]:
    """The `gradients` and `extras` of `count` that one of fnopt's optimizers reads.

    Args:
      optimizer: whose `update` may need a value, a Hessian's diagonal, a key or an objective, or
        gradients of single examples, of which it gets one.
      tree: the params' shapes.
    """
    known = {
        "value": jax.ShapeDtypeStruct((), jnp.float32),
        "hessian": tree,
        "key": jax.eval_shape(jax.random.key, 0),
        "obj_fn": lambda params: sum(jnp.vdot(x, x) for x in jax.tree.leaves(params)),
    }
    reads = optimizer.rule.extras() or frozenset()
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), tree)
    return {
        "gradients": one if optimizer.rule.per_example else None,
        "extras": {name: value for name, value in known.items() if name in reads},
    }
