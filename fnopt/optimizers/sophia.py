"""Sophia: momentum over a diagonal Hessian that is looked at now and then, each step clipped.

    m ← β₁m + (1−β₁)g                 (/(1−β₁ᵗ) with `bias_correction`)
    every k steps, the first at t = 1:  h ← β₂h + (1−β₂)ĥ
    θ ← θ − η (clip(m / max(γh, ε), ±ρ) + λθ)

ĥ is an unbiased estimate of the Hessian's diagonal, by one of
    Hutchinson (Sophia-H)    ĥ = r ⊙ ∇²f(θ)r for random signs r: needs `obj_fn`, θ -> f
    Gauss-Newton-Bartlett    ĥ = B ĝ², ĝ the mean gradient over B labels drawn from the
      (Sophia-G)             model itself: needs `logits_fn`, θ -> logits (..., classes)
handed to `update` as an extra argument at every step, with `key=` for the randomness.

Good for: language models, by its authors' tests; an independent comparison saw it fail on longer
runs (arXiv 2509.01440).
Caveat: the function is called with the rule's params: float32 in the place of bfloat16, None in
the place of leaves that are not float arrays. h is renewed before the step as in the paper; optax
renews it after, so that its first steps have h = 0. No bias correction in the paper, optax has it.
Memory: two values per parameter.
Source: Liu et al. 2023, arXiv 2305.14342.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative, Positive
from fnopt.optimizers.adahessian import hutchinson
from fnopt.storage import StoredMean
from fnopt.transforms.constraints import as_key
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate


class EstimatorState(NamedTuple):
    """The count of estimates, int32 ()."""

    count: Any


def _key(owner: str, random_seed: Any, key: Any, count: jax.Array) -> jax.Array:
    """The key given to `update`; else the one given to the factory, folded with the count."""
    if key is not None:
        return as_key(owner, key)
    if random_seed is None:
        raise TypeError(f"{owner} needs key=...: call update(updates, state, params, key=...)")
    return jax.random.fold_in(as_key(owner, random_seed), count)


@gradient_transformation
def hutchinson_estimator_diag_hessian(random_seed: Any = None, *, axis_name: Any = None) -> Any:
    """u ← r ⊙ ∇²f(θ)r, r random signs: an estimate of the Hessian's diagonal.

    `update` needs `obj_fn`, a function of the params alone, and a `key` unless one is given here.

    Args:
      random_seed: a PRNG key or an int for all estimates, or None to give each its own key.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension: see `hutchinson`.

    Cost: one gradient and one forward derivative of it.
    """
    owner = "hutchinson_estimator_diag_hessian"

    def update(
        updates: Any, state: EstimatorState, params: Any, *, obj_fn: Any, key: Any = None
    ) -> Any:
        chosen = _key(owner, random_seed, key, state.count)
        diagonal = hutchinson(obj_fn, params, chosen, axis_name=axis_name)
        return diagonal, EstimatorState(tree.increment(state.count))

    return lambda params: EstimatorState(tree.zero_count()), update


def _labels(key: jax.Array, logits: jax.Array, batch_axis_name: Any) -> jax.Array:
    """A label for each row of logits, drawn as for the rows of all parts."""
    if batch_axis_name is None:
        return jax.random.categorical(key, logits)
    noise = jax.random.gumbel(key, mesh_axes.whole_shape(logits, batch_axis_name), logits.dtype)
    noise = mesh_axes.part(noise, mesh_axes.split_axes(logits, batch_axis_name))
    return jnp.argmax(noise + logits, axis=-1)


@gradient_transformation
def gauss_newton_bartlett_estimator_diag_hessian(
    random_seed: Any = None, *, batch_axis_name: Any = None
) -> Any:
    """u ← B ĝ²: an estimate of the Gauss-Newton matrix's diagonal for a cross-entropy loss.

    ĝ is the gradient of the mean cross-entropy against B labels drawn from the model. `update`
    needs `logits_fn`, a function of the params that returns logits (..., classes), and a `key`
    unless one is given here.

    Args:
      random_seed: a PRNG key or an int for all estimates, or None to give each its own key.
      batch_axis_name: inside `shard_map`, the mesh axes over which the batch is split, the logits'
        first dimension: the labels and ĝ are those of the whole batch. It must check what varies,
        as it does by default. Without it all parts of a batch draw alike, and each has its own ĝ.

    Cost: one gradient.
    """
    owner = "gauss_newton_bartlett_estimator_diag_hessian"

    def update(
        updates: Any, state: EstimatorState, params: Any, *, logits_fn: Any, key: Any = None
    ) -> Any:
        chosen = _key(owner, random_seed, key, state.count)

        def loss(params: Any) -> Any:
            logits = logits_fn(params)
            labels = _labels(chosen, jax.lax.stop_gradient(logits), batch_axis_name)
            log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
            picked = jnp.take_along_axis(log_p, labels[..., None], axis=-1)
            axes = mesh_axes.split_axes(logits, batch_axis_name)
            batch = labels.size * mesh_axes.parts(logits, batch_axis_name)
            return mesh_axes.across(jax.lax.pmean, -jnp.mean(picked), axes), batch

        gradient, batch = jax.grad(loss, has_aux=True)(params)
        diagonal = tree.map(lambda g: batch * tree.squared(g), gradient)
        return diagonal, EstimatorState(tree.increment(state.count))

    return lambda params: EstimatorState(tree.zero_count()), update


HUTCHINSON = hutchinson_estimator_diag_hessian()
"""The estimator that Sophia has by default; each estimate is given its own key."""


class SophiaState(NamedTuple):
    """The count, int32 (); m, like the params; h, real, like them; the estimator's state."""

    count: Any
    mu: Any
    nu: Any
    hessian: Any


@gradient_transformation
def scale_by_sophia(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Positive = 1e-8,
    gamma: NonNegative = 0.01,
    clip_threshold: Positive | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Any = HUTCHINSON,
    mu_dtype: StoredMean = None,
    *,
    bias_correction: bool = False,
) -> Any:
    """u ← clip(m / max(γh, ε), ±ρ). See `sophia`.

    Memory: two values per parameter.
    """

    def init(params: Any) -> SophiaState:
        mu, nu = tree.zeros_like(params), tree.real_zeros_like(params)
        return SophiaState(tree.zero_count(), mu, nu, hessian_diagonal_fn.init(params))

    def update(updates: Any, state: SophiaState, params: Any, **extra_args: Any) -> Any:
        t = tree.increment(state.count)
        c1 = tree.debias(b1, t) if bias_correction else 1.0

        def renew() -> Any:
            diagonal, inner = hessian_diagonal_fn.update(
                updates, state.hessian, params, **extra_args
            )
            fresh = tree.map(lambda h: tree.saturate(jnp.real(h)), diagonal)
            return tree.lerp(state.nu, fresh, b2), inner

        due = state.count % update_interval == 0
        nu, inner = mesh_axes.cond(due, renew, lambda: (state.nu, state.hessian))

        def step(g: jax.Array, m: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
            m = b1 * m + (1 - b1) * tree.saturate(g)
            u = c1 * m / jnp.maximum(gamma * h, eps)
            if clip_threshold is None:
                return u, m
            if jnp.iscomplexobj(u):
                return u * (clip_threshold / jnp.maximum(jnp.abs(u), clip_threshold)), m
            return jnp.clip(u, -clip_threshold, clip_threshold), m

        updates, mu = tree.map(step, updates, state.mu, nu, outputs=2)
        return updates, SophiaState(t, mu, nu, inner)

    return init, update


@composition
def sophia(
    learning_rate: LearningRate,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 1e-4,
    weight_decay_mask: Any = None,
    gamma: NonNegative = 0.01,
    clip_threshold: Positive | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Any = HUTCHINSON,
    mu_dtype: StoredMean = None,
    *,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Sophia: `update(..., obj_fn=lambda params: loss(params, batch), key=key)`.

    Args:
      learning_rate: η ≥ 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1), the decay of h, per estimate.
      eps: ε > 0, the least denominator.
      weight_decay: λ ≥ 0, multiplied by the learning rate.
      weight_decay_mask: which leaves decay: a tree of bools with the params' structure or a
        prefix of it, or a function of the params that returns one.
      gamma: γ: larger clips less; 0.01 for Hutchinson's estimates, 0.05 for the other's.
      clip_threshold: ρ > 0, the largest entry of a step in units of η; None for no limit.
      update_interval: k, the steps between estimates.
      hessian_diagonal_fn: what estimates: a transformation (params -> state, and update
        -> diagonal) that gets `update`'s extra arguments.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      bias_correction: divide m by 1−β₁ᵗ.

    >>> import fnopt
    >>> fnopt.sophia(1e-3)  # doctest: +ELLIPSIS
    sophia(learning_rate=0.001, b1=0.965, b2=0.99, eps=1e-08, weight_decay=0.0001, gamma=0.01, ...)
    """
    rule = scale_by_sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        hessian_diagonal_fn,
        mu_dtype,
        bias_correction=bias_correction,
    )
    return chain(
        rule,
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
