"""Muon: momentum whose singular values are all made one; hidden matrices by it, the rest by Adam.

    m ← βm + (1−β)g
    u ← βm + (1−β)g, else u ← m                    with Nesterov's look-ahead, or heavy ball
    O ← UVᵀ of u = UΣVᵀ, by five steps of Newton-Schulz
    θ ← θ − η(sO + λθ)                             with `scale`'s s, of in inputs and out outputs:
        "keller_jordan"  √max(1, out/in)
        "moonlight"      0.2 √max(out, in), as long as AdamW's steps: its rates and decay carry over
        "spectral"       √(out/in)

Good for: the hidden layers of transformers and other networks, in fewer steps than AdamW by its
authors' tests and by independent ones (arXiv 2509.02046).
Caveat: embeddings, heads, norms and biases are none of its business and go to the fallback, with a
rate of its own. By default what they are is read off the paths: look at `matrix_report(params)`,
or give `dimension_numbers`. Kernels are (in, out) unless `layout` says otherwise. Moonlight's
momentum adds g whole; only its length differs, which O does not have. optax takes every leaf of
two dimensions, embeddings too, at one rate, and corrects the look-ahead for a bias.
Memory: one value per parameter; the fallback's for its own.
Source: Jordan et al. 2024, github.com/KellerJordan/Muon; Liu et al. 2025, arXiv 2502.16982.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.linalg.newton_schulz import orthogonalize, sequence
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import View, views
from fnopt.optimizers.adam import adam
from fnopt.storage import StoredMean
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.fallback import matrix_or_fallback, named

SCALES: dict[str, Callable[[View], float]] = {
    "keller_jordan": lambda view: math.sqrt(max(1.0, view.fan_out / view.fan_in)),
    "moonlight": lambda view: 0.2 * math.sqrt(max(view.fan_out, view.fan_in)),
    "spectral": lambda view: math.sqrt(view.fan_out / view.fan_in),
}
"""What an orthogonal matrix is times, by its view."""


def scaled(updates: Any, seen: Any, scale: str) -> Any:
    """sO for each leaf, as its view says; a leaf without a view as it is."""
    factors = jax.tree.map(lambda _, v: 1.0 if v is None else SCALES[scale](v), updates, seen)
    return tree.map(lambda o, s: s * o, updates, factors)


def check(name: str, scale: str) -> None:
    """An error for a scale that there is not."""
    if scale not in SCALES:
        raise ValueError(f"{name}: scale must be one of {', '.join(SCALES)}, got {scale!r}")


class MuonState(NamedTuple):
    """m, like the params."""

    mu: Any


@gradient_transformation
def scale_by_muon(
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = True,
    scale: str = "keller_jordan",
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← sO. A vector is a matrix of one row: it is divided by its norm. See `muon`.

    Memory: one value per parameter.
    """
    check("muon", scale)
    sequence(ns_coeffs, ns_steps)

    def init(params: Any) -> MuonState:
        return MuonState(tree.zeros_like(params))

    def momentum(g: jax.Array, m: jax.Array) -> Any:
        m = beta * m + (1 - beta) * tree.saturate(g)
        return m, beta * m + (1 - beta) * tree.saturate(g) if nesterov else m

    def kernel(stacks: Any, kept: Any) -> Any:
        return (orthogonalize(stacks[0], ns_steps, ns_coeffs, dtype=ns_dtype),), ()

    def update(updates: Any, state: MuonState) -> Any:
        seen = views(updates, dimension_numbers, layout, vectors=True, axis_name=axis_name)
        mu, ahead = tree.map(momentum, updates, state.mu, outputs=2)
        (turned,), _ = map_stacks(kernel, seen, (ahead,))
        return scaled(turned, seen, scale), MuonState(mu)

    return init, update


@composition
def muon(
    learning_rate: LearningRate,
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
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
    """Muon on hidden matrices, Adam or another optimizer on the other leaves.

    Args:
      learning_rate: η ≥ 0 of the matrices; the author's is 0.02, with "moonlight" AdamW's.
      ns_coeffs: of Newton-Schulz: "keller_jordan", "quintic", "polar_express", "exact", a triple,
        or a triple for each step.
      ns_steps: how many steps of it.
      beta: β in [0, 1).
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      weight_decay_mask: which of the matrices decay: a tree of bools with the params' structure or
        a prefix of it, or a function of the params that returns one.
      mu_dtype: the dtype or codec that m is stored in, as in `store`; None for the compute dtype.
      nesterov: let the momentum look one step ahead.
      scale: "keller_jordan", "moonlight" or "spectral".
      layout: "in_out" for kernels that stand on the right (x @ w), "out_in" for PyTorch's.
      ns_dtype: of Newton-Schulz's arithmetic, as bfloat16; None for float32.
      dimension_numbers: which leaves are matrices, and their axes: a tree like the params of
        `MatrixDimensionNumbers`, with None for the fallback's leaves, or a function of the params
        that returns one; None to read it off paths and shapes, see `matrix_report`.
      fallback: the optimizer of the other leaves; None for `adam(3e-4, b2=0.95, eps=1e-10)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Raises:
      ValueError: an unknown scale, layout or sequence, or dimension numbers that do not fit.

    >>> import fnopt
    >>> fnopt.muon(0.02, weight_decay=0.1).name
    'muon'
    """
    rule = chain(
        scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
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
    return matrix_or_fallback("muon", rule, fallback, dimension_numbers, layout, axis_name)
