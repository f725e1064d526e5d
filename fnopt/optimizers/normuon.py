"""NorMuon: Muon's step with an adaptive rate for each neuron, so that all of them move alike.

    m ← βm + (1−β)g;   u ← βm + (1−β)g, else u ← m      Nesterov's look-ahead, or heavy ball
    O ← UVᵀ of u = UΣVᵀ, by Newton-Schulz
    v ← β₂v + (1−β₂) mean(O²)                           for each output, over its inputs
    Ô ← O / (√v + ε);   Ô ← ‖O‖ Ô / ‖Ô‖                 the norms over each matrix
    θ ← θ − η(sÔ + λθ)                                  with Muon's `scale` s

Good for: the hidden layers of transformers, in fewer steps than Muon by its authors' tests.
Caveat: v has no bias correction: ‖Ô‖ is set anyway. This is the authors' code; their paper has
s‖O‖ = 0.2 √(out · in), which "moonlight" is for an O of full rank. A neuron whose momentum is lost
in rounding is stepped as far as all others.
Memory: one value per parameter, and one per neuron; the fallback's for its own.
Source: Li et al. 2025, arXiv 2510.05491, and github.com/zichongli5/NorMuon.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.linalg.blocks import as_placed
from fnopt.linalg.newton_schulz import orthogonalize, sequence
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import View, views
from fnopt.optimizers.adam import adam
from fnopt.optimizers.muon import check, scaled
from fnopt.storage import StoredMean
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.fallback import matrix_or_fallback, named


class NorMuonState(NamedTuple):
    """m, like the params; v, real, of their number of dimensions, 1 in the place of inputs."""

    mu: Any
    nu: Any


class Neurons(NamedTuple):
    """v along the rows (k, rows, 1) and the columns (k, 1, columns) of a stack; the one that the
    neurons are is in use, the other idles; which it is, of bools (k, 1, 1)."""

    rows: jax.Array
    columns: jax.Array
    by_rows: jax.Array


def _of_neurons(view: View) -> View:
    shape = tuple(1 if i in view.inputs else n for i, n in enumerate(view.shape))
    return dataclasses.replace(view, shape=shape, over=() if 0 in view.inputs else view.over)


def _to_stack(v: jax.Array, view: View) -> Neurons:
    v = _of_neurons(view).stack(v)
    by_rows = jnp.full((view.batch, 1, 1), not view.inputs_first)
    if view.inputs_first:
        idle = jnp.zeros((view.batch, view.rows, 1), v.dtype)
        return Neurons(idle, v.reshape(view.batch, 1, view.columns), by_rows)
    idle = jnp.zeros((view.batch, 1, view.columns), v.dtype)
    return Neurons(v.reshape(view.batch, view.rows, 1), idle, by_rows)


def _from_stack(neurons: Neurons, view: View, last: jax.Array) -> jax.Array:
    used = neurons.columns if view.inputs_first else neurons.rows
    return _of_neurons(view).unstack(used, last)


@gradient_transformation
def scale_by_normuon(
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    beta2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = True,
    scale: str = "keller_jordan",
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← sÔ. A vector is the matrix of one neuron: it is divided by its norm. See `normuon`.

    Memory: one value per parameter, and one per neuron.
    """
    check("normuon", scale)
    sequence(ns_coeffs, ns_steps)

    def seen_as(params: Any) -> Any:
        return views(params, dimension_numbers, layout, vectors=True, axis_name=axis_name)

    def each(f: Any, seen: Any, *trees: Any) -> Any:
        """f of a leaf's view and its leaves; None without a view."""
        pick = lambda view, *xs: None if view is None else f(*xs, view)
        return jax.tree.map(pick, seen, *trees, is_leaf=lambda x: x is None or isinstance(x, View))

    def init(params: Any) -> NorMuonState:
        def zeros(p: jax.Array, view: View) -> jax.Array:
            shape = [1 if i in view.inputs else n for i, n in enumerate(p.shape)]
            return jnp.zeros(shape, jnp.finfo(p.dtype).dtype)

        return NorMuonState(tree.zeros_like(params), each(zeros, seen_as(params), params))

    def momentum(g: jax.Array, m: jax.Array) -> Any:
        m = beta * m + (1 - beta) * tree.saturate(g)
        return m, beta * m + (1 - beta) * tree.saturate(g) if nesterov else m

    def kernel(stacks: Any, kept: Any) -> Any:
        o = orthogonalize(stacks[0], ns_steps, ns_coeffs, dtype=ns_dtype)
        squares, (v,) = tree.squared(o), kept
        rows = beta2 * v.rows + (1 - beta2) * jnp.mean(squares, -1, keepdims=True)
        columns = beta2 * v.columns + (1 - beta2) * jnp.mean(squares, -2, keepdims=True)
        root = tree.sqrt(jnp.where(v.by_rows, rows, columns)) + eps
        turned = o / root.astype(o.dtype)
        norm, wanted = (reductions.axis_norm(x, (-2, -1)) for x in (turned, o))
        norm = jnp.where(norm == 0, jnp.ones_like(norm), norm)
        return ((wanted / norm).astype(o.dtype) * turned,), (Neurons(rows, columns, v.by_rows),)

    def update(updates: Any, state: NorMuonState) -> Any:
        seen = seen_as(updates)
        mu, ahead = tree.map(momentum, updates, state.mu, outputs=2)
        lasting = each(lambda v, view: _to_stack(v, view), seen, state.nu)
        (turned,), (nu,) = map_stacks(kernel, seen, (ahead,), (lasting,))
        nu = each(lambda v, last, view: _from_stack(v, view, last), seen, nu, state.nu)
        return scaled(turned, seen, scale), NorMuonState(mu, as_placed(nu, state.nu))

    return init, update


@composition
def normuon(
    learning_rate: LearningRate,
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    beta2: Decay = 0.95,
    eps: NonNegative = 1e-10,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = True,
    scale: str = "keller_jordan",
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """NorMuon on hidden matrices, Adam or another optimizer on the other leaves.

    What is not said here is as in `muon`.

    Args:
      learning_rate: η ≥ 0 of the matrices; the authors' is 0.02.
      ns_coeffs: of Newton-Schulz.
      ns_steps: of it.
      beta: β in [0, 1).
      beta2: β₂ in [0, 1).
      eps: ε ≥ 0, outside the root.
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      weight_decay_mask: which of the matrices decay.
      mu_dtype: the dtype or codec that m is stored in.
      nesterov: let the momentum look one step ahead.
      scale: "keller_jordan", "moonlight" or "spectral".
      layout: "in_out" or "out_in".
      ns_dtype: of Newton-Schulz's arithmetic; None for float32.
      dimension_numbers: which leaves are matrices, and their axes.
      fallback: the optimizer of the other leaves; None for `adam(3e-4, b2=0.95, eps=1e-10)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    >>> import fnopt
    >>> fnopt.normuon(0.02, weight_decay=0.1).name
    'normuon'
    """
    rule = chain(
        scale_by_normuon(
            ns_coeffs,
            ns_steps,
            beta,
            beta2,
            eps,
            mu_dtype,
            nesterov=nesterov,
            scale=scale,
            layout=layout,
            ns_dtype=ns_dtype,
            dimension_numbers=dimension_numbers,
            axis_name=axis_name,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    if fallback is None:
        fallback = adam(named(3e-4), b2=0.95, eps=1e-10)
    return matrix_or_fallback("normuon", rule, fallback, dimension_numbers, layout, axis_name)
