"""Sharpness-aware minimization: the gradient from the worst point nearby; `sam` and `asam`.

    ε = ρ g / ‖g‖                     sam: the adversary's step uphill
    ε = ρ T²g / ‖Tg‖,  T = |θ| + η    asam: in proportion to the weights
    the optimizer gets ∇L(θ + ε), and steps from θ

Two gradients a step. In the two-step form the adversary's step is an update like another, so the
training loop stays as it is and every second gradient is taken at θ + ε; in the opaque form
`update` is given a function and takes the second gradient itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, reductions, tree
from fnopt.core import chain, gradient_transformation
from fnopt.hyperparameters import NonNegative
from fnopt.rule import Rule, as_rule, routed
from fnopt.transforms.normalization import normalize_by_update_norm, reciprocal
from fnopt.transforms.scaling import scale
from fnopt.wrappers.branching import either


class SamState(NamedTuple):
    """The count of optimizer steps and the adversary's steps since, int32 (); θ, like the params,
    None in the opaque form; the adversary's state; the optimizer's."""

    count: Any
    mini_step: Any
    start: Any
    adversary: Any
    inner: Any


def _sharpness_aware(
    owner: str, optimizer: Rule, adversary: Rule, period: int, reset: bool, opaque: bool, axis: Any
) -> Any:
    if period < 1:
        raise ValueError(f"{owner}: sync_period must be at least 1, got {period}")

    def init(params: Any) -> SamState:
        start = None if opaque else params
        zeros = tree.zero_count(), tree.zero_count()
        return SamState(*zeros, start, adversary.init(params), optimizer.init(params))

    def uphill(updates: Any, state: Any, params: Any) -> Any:
        down, state = adversary.update(updates, state, params)
        return tree.scale(-1.0, down), state

    def in_two_steps(updates: Any, state: SamState, params: Any, **extra_args: Any) -> Any:
        last = state.mini_step == period - 1
        first = state.mini_step == 0
        start = jax.tree.map(lambda s, p: jnp.where(first, p, s), state.start, params)

        def step() -> Any:
            new, inner = optimizer.update(updates, state.inner, start, **extra_args)
            back = tree.map(lambda s, p, u: (s - p) + u, start, params, new)
            return back, adversary.init(params) if reset else state.adversary, inner

        def climb() -> Any:
            return (*uphill(updates, state.adversary, params), state.inner)

        new, other, inner = either(owner, last, step, climb)
        count = state.count + last.astype(jnp.int32)
        return new, SamState(count, (state.mini_step + 1) % period, start, other, inner)

    def at_once(
        updates: Any, state: SamState, params: Any, *, grad_fn: Any, **extra_args: Any
    ) -> Any:
        point, other = params, state.adversary
        gradient = updates
        for i in range(period - 1):
            climb, other = uphill(gradient, other, point)
            point = tree.add(point, climb)
            gradient = leaves.clean(grad_fn(point, i), updates)
            if axis is not None:
                gradient = jax.lax.pmean(gradient, axis)
        if reset:
            other = adversary.init(params)
        new, inner = optimizer.update(gradient, state.inner, params, **extra_args)
        return new, SamState(tree.increment(state.count), state.mini_step, None, other, inner)

    return init, at_once if opaque else in_two_steps, lambda params: routed(optimizer, params)


@gradient_transformation
def sam(
    optimizer: Any,
    adv_optimizer: Any = None,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: Any = None,
    *,
    rho: NonNegative = 0.05,
    axis_name: Any = None,
) -> Any:
    """An optimizer on gradients from the worst point within ρ.

        opaque = sam(sgd(0.1), opaque_mode=True)
        grad_fn = jax.grad(lambda params, i: loss(params, batch))
        updates, state = opaque.update(gradients, state, params, grad_fn=grad_fn)

    Args:
      optimizer: any whole optimizer.
      adv_optimizer: whose step, turned around, leads uphill; None for ρ g / ‖g‖.
      sync_period: the optimizer steps at every so manieth gradient; 2 is the method.
      reset_state: make the adversary's state anew after each optimizer step.
      opaque_mode: take the other gradients inside of `update`, from
        `grad_fn(params, i) -> gradients`. It sees the rule's params: float32 in the place of
        bfloat16, None in the place of leaves that are not float arrays.
      batch_axis_name: the mesh axes to average `grad_fn`'s gradients over.
      rho: ρ ≥ 0, how far uphill, if `adv_optimizer` is None.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split. It does
        not reach the optimizer, which has its own.

    Memory: one value per parameter, none in the opaque form; the optimizer's and the adversary's.
    Source: Foret et al. 2020, arXiv 2010.01412.

    Raises:
      ValueError: for a period below 1.
    """
    adversary = adv_optimizer
    if adversary is None:
        adversary = chain(normalize_by_update_norm(eps=0.0, axis_name=axis_name), scale(-rho)).rule
    return _sharpness_aware(
        "sam", optimizer, adversary, sync_period, reset_state, opaque_mode, batch_axis_name
    )


def _adaptive(rho: Any, eta: Any, axis_name: Any) -> Rule:
    def update(updates: Any, state: Any, params: Any) -> Any:
        def scaled(u: jax.Array, p: jax.Array) -> jax.Array:
            return (jnp.abs(p) + eta) * tree.saturate(u)

        size = tree.map(scaled, updates, params)
        factor = -rho * reciprocal(tree.weak(reductions.whole_norm(size, axis_name)))
        step = tree.map(lambda s, p: (jnp.abs(p) + eta) * (factor * s), size, params)
        return step, state

    return as_rule((lambda params: (), update), "adaptive")


@gradient_transformation
def asam(
    optimizer: Any,
    *,
    rho: NonNegative = 0.5,
    eta: NonNegative = 0.01,
    sync_period: int = 2,
    opaque_mode: bool = False,
    batch_axis_name: Any = None,
    axis_name: Any = None,
) -> Any:
    """`sam` with a neighbourhood in proportion to the weights, so that scaling a layer is nothing.

    Args:
      optimizer: any whole optimizer.
      rho: ρ ≥ 0, how far uphill in units of T.
      eta: η ≥ 0, the least T.
      sync_period: as in `sam`.
      opaque_mode: as in `sam`.
      batch_axis_name: as in `sam`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the tree is split. It does
        not reach the optimizer, which has its own.

    Memory: one value per parameter, none in the opaque form, and the optimizer's.
    Source: Kwon et al. 2021, arXiv 2102.11600.

    Raises:
      ValueError: for a period below 1.
    """
    adversary = _adaptive(rho, eta, axis_name)
    return _sharpness_aware(
        "asam", optimizer, adversary, sync_period, True, opaque_mode, batch_axis_name
    )
