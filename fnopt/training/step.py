"""One training step as a pair of pure functions: gradient, update, new parameters, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import leaves, tree
from fnopt.apply import apply_updates
from fnopt.core import GradientTransformation
from fnopt.hyperparameters import hyperparameters
from fnopt.optimizers.adahessian import hutchinson
from fnopt.rule import is_transformation
from fnopt.transforms.clipping import global_norm
from fnopt.tree import PyTree


class TrainState(NamedTuple):
    """Everything that a training run carries from step to step.

    Attributes:
      params: the parameters, any pytree of arrays.
      optimizer_state: the optimizer's state for them.
      step: int32 (), the steps made so far.
    """

    params: PyTree
    optimizer_state: PyTree
    step: jax.Array


class TrainStep(NamedTuple):
    """`init, step = make_train_step(...)`.

    Attributes:
      init: params -> TrainState. Copies the parameters, so yours stay valid.
      step: (state, batch) -> (state, metrics). Jitted; the state given to it is donated.
    """

    init: Callable[[PyTree], TrainState]
    step: Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Any]]]

    @property
    def unjitted(self) -> Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Any]]]:
        """The plain function under `step`, for a `lax.scan` or a jit of your own."""
        return getattr(self.step, "__wrapped__", self.step)


def make_train_step(
    loss_fn: Callable[[PyTree, PyTree], Any] | None,
    optimizer: Any,
    *,
    has_aux: bool = False,
    gradients: Callable[[PyTree, PyTree], tuple[Any, PyTree]] | None = None,
    key: jax.Array | None = None,
    log_layers: bool = False,
) -> TrainStep:
    """A training step of a loss and an optimizer.

        init, step = make_train_step(loss_fn, fnopt.adam(1e-3))
        state = init(params)
        state, metrics = step(state, batch)

    Args:
      loss_fn: (params, batch) -> loss, a float scalar; or (loss, aux) with `has_aux`.
      optimizer: fnopt's or optax's transformation. Its update is given `value=loss`,
        `grad=gradient` and `value_fn=params -> loss` where it takes them; and what it reads of
        `obj_fn`, the same function, and, if there is a key, `key` and `hessian`, the estimate of
        `hutchinson`. One that takes the gradients of single examples, as `dpsgd`, is given
        those of batches of one row each, and the metrics are means over the rows.
      has_aux: whether the loss comes with a pytree of other results; it is metrics["aux"].
      gradients: (params, batch) -> (loss, gradient), or ((loss, aux), gradient) with `has_aux`:
        used in place of differentiating `loss_fn`, which may then be None.
      key: a JAX random key for optimizers that draw; each step's is made from it and the step.
      log_layers: whether the metrics have the numbers of `of_layers`, which cost one more pass over
        the gradients, the updates and the params.

    Returns:
      The pair (init, step). The metrics are scalars: `loss`, `grad_norm` and `update_norm`, the
      Euclidean norms of the whole gradient and of the whole update; `learning_rate`, the one
      that this step used, if the optimizer has exactly one; and `aux`.

    Raises:
      TypeError: `optimizer` is no transformation, or there is neither loss_fn nor gradients.
    """
    if not is_transformation(optimizer):
        raise TypeError(f"make_train_step: expected a transformation, got {optimizer!r}")
    if loss_fn is None and gradients is None:
        raise TypeError("make_train_step needs loss_fn or gradients=...")
    if not isinstance(optimizer, GradientTransformation):
        optimizer = GradientTransformation(optimizer.init, optimizer.update)
    if gradients is None:
        gradients = jax.value_and_grad(loss_fn, has_aux=has_aux, allow_int=True)  # type: ignore[arg-type]
    whole = gradients
    per_example = optimizer.rule.per_example
    if per_example:
        gradients = _of_each_row(whole)
    reads = optimizer.rule.extras() or frozenset()

    def init(params: PyTree) -> TrainState:
        params = jax.tree.map(_copy, params)
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, dict[str, Any]]:
        value, updates = gradients(state.params, batch)
        grads = updates
        if per_example:
            value, grads = jax.tree.map(_mean_of_rows, (value, updates))
        loss = _loss(value, has_aux)

        def value_fn(params: PyTree) -> jax.Array:
            if loss_fn is not None:
                return _loss(loss_fn(params, batch), has_aux)
            return _loss(whole(params, batch)[0], has_aux)

        extras = {"value": loss, "grad": grads, "value_fn": value_fn}
        if "obj_fn" in reads:
            extras["obj_fn"] = value_fn
        if key is not None:
            extras["key"] = jax.random.fold_in(key, state.step)
            if "hessian" in reads:
                extras["hessian"] = hutchinson(value_fn, state.params, extras["key"])
        updates, optimizer_state = optimizer.update(
            updates, state.optimizer_state, state.params, **extras
        )
        metrics = {
            "loss": loss,
            "grad_norm": global_norm(grads),
            "update_norm": global_norm(updates),
        }
        known = hyperparameters(optimizer_state)
        if "learning_rate" in known:
            metrics["learning_rate"] = known["learning_rate"]
        if has_aux:
            metrics["aux"] = value[1]
        params = apply_updates(state.params, updates)
        if log_layers:
            metrics |= of_layers(grads, updates, params)
        return TrainState(params, optimizer_state, tree.increment(state.step)), metrics

    return TrainStep(init, jax.jit(step, donate_argnums=0))


LAYER_METRICS = ("grad_norm", "update_norm", "update_ratio", "effective_rate")


def of_layers(grads: PyTree, updates: PyTree, params: PyTree) -> dict[str, jax.Array]:
    """Each parameter's numbers of one step, by name: `grad_norm/0/w`, ..., scalars.

    `grad_norm` is ‖g‖ and `update_norm` is ‖u‖. `update_ratio` is ‖u‖ / ‖θ‖, with θ after the step,
    so that weights that begin at zero have one. `effective_rate` is ‖u‖ / ‖g‖: the learning rate
    with which plain gradient descent would make a step of that length. Both are 0 for 0/0, and
    where a quotient has no number.
    """
    metrics: dict[str, jax.Array] = {}
    pairs = jax.tree_util.tree_flatten_with_path(params, is_leaf=tree.is_none)[0]
    for (path, p), g, u in zip(pairs, leaves.flatten(grads)[0], leaves.flatten(updates)[0]):
        if leaves.is_inexact(p) and u is not None:
            sizes = grad, update, weight = global_norm(g), global_norm(u), global_norm(p)
            numbers = (*sizes[:2], _quotient(update, weight), _quotient(update, grad))
            name = tree.path_name(path)
            metrics |= {f"{m}/{name}": x for m, x in zip(LAYER_METRICS, numbers)}
    return metrics


def _quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    zero = b == 0
    return jnp.where(zero, jnp.zeros_like(a), a / jnp.where(zero, jnp.ones_like(b), b))


def _loss(value: Any, has_aux: bool) -> jax.Array:
    """The scalar in what a loss function returned."""
    loss = jnp.asarray(value[0] if has_aux and isinstance(value, tuple) else value)
    if loss.shape:
        raise TypeError(f"make_train_step: the loss must be a scalar, got shape {loss.shape}")
    return loss


def _of_each_row(gradients: Callable[..., Any]) -> Callable[..., Any]:
    """The losses and gradients of the rows of a batch, each a batch by itself, stacked."""

    def stacked(params: PyTree, batch: PyTree) -> Any:
        rows = jax.tree.map(lambda x: jnp.expand_dims(x, 1), batch)
        return jax.vmap(gradients, (None, 0))(params, rows)

    return stacked


def _mean_of_rows(x: Any) -> Any:
    """The mean over the first axis, in the compute dtype; what is no float stays."""
    if not leaves.is_inexact(x):
        return x
    return jnp.mean(leaves.cast(x, leaves.compute_dtype(x.dtype)), axis=0)


def _copy(x: Any) -> jax.Array:
    """A leaf as a strongly typed array of its own, where it was."""
    return leaves.cast(jnp.array(x, copy=True), leaves.dtype_of(x))
