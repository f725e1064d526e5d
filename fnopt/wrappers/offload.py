"""State in the host's memory between steps: `offload`."""

from __future__ import annotations

from typing import Any

import jax

from fnopt.core import gradient_transformation
from fnopt.rule import routed


@gradient_transformation
def offload(optimizer: Any) -> Any:
    """An optimizer whose state may lie in the host's memory between steps.

    A leaf of the state that comes from there is moved to the device for the update, and its
    successor back. `init_sharded(optimizer, params, memory_kind="pinned_host")` puts it there;
    counts and rates stay on the device. Every step moves the state twice.

        optimizer = fnopt.offload(fnopt.adamw(1e-3))
        state = fnopt.init_sharded(optimizer, params, memory_kind="pinned_host")

    Args:
      optimizer: any optimizer, also one in `zero`. JAX 0.8 cannot compile this for several CPU
        devices; 0.10 and 0.12 can.

    Memory: the optimizer's; on the device none between steps.
    Source: Ren et al. 2021, arXiv 2101.06840.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        spaces = jax.tree.map(_space, state)
        here = jax.tree.map(lambda x, s: _moved(x, s and jax.memory.Space.Device), state, spaces)
        updates, new = optimizer.update(updates, here, params, **extra_args)
        return updates, jax.tree.map(_moved, new, spaces)

    return optimizer.init, update, lambda params: routed(optimizer, params)


def _space(x: Any) -> Any:
    """The host's memory for a leaf that is there, False for any other."""
    there = isinstance(x, jax.Array) and jax.typeof(x).memory_space == jax.memory.Space.Host
    return jax.memory.Space.Host if there else False


def _moved(x: Any, space: Any) -> Any:
    return jax.device_put(x, space) if space else x
