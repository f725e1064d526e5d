"""MARS-M: Muon on gradients with their variance reduced by the last gradient.

    c = g + γ β/(1−β) (g − g₋₁);   c ← c / max(1, ‖c‖)          the norm over each matrix
    m ← βm + (1−β)c;   u ← m, else u ← βm + (1−β)c             heavy ball, or Nesterov's look-ahead
    O ← UVᵀ of u = UΣVᵀ, by Newton-Schulz
    θ ← θ − η(sO + λθ)                                         with Muon's `scale` s

Good for: language models, to a lower loss than Muon at the same steps by its authors' tests.
Caveat: this is the authors' approximate form: g₋₁ is the gradient of the last batch, not that of
this batch at the last parameters, and it is zero at the first step. The bound of ‖c‖ is their
paper's.
Memory: two values per parameter; the fallback's for its own.
Source: Liu et al. 2025, arXiv 2510.21800; Yuan et al. 2024, arXiv 2411.10438.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax

from fnopt import tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.fusion import overwrite_after
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.linalg.newton_schulz import orthogonalize, sequence
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import views
from fnopt.optimizers.adam import adam
from fnopt.optimizers.mars import correct
from fnopt.optimizers.muon import check, scaled
from fnopt.storage import StoredMean
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.fallback import matrix_or_fallback, named


class MarsMuonState(NamedTuple):
    """m, like the params; the last gradient, like them."""

    mu: Any
    last: Any


@gradient_transformation
def scale_by_mars_muon(
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    gamma: NonNegative = 0.025,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
    scale: str = "moonlight",
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← sO of the mean of c. A vector is a matrix of one row. See `mars_muon`.

    Memory: two values per parameter.
    """
    check("mars_muon", scale)
    sequence(ns_coeffs, ns_steps)

    def init(params: Any) -> MarsMuonState:
        return MarsMuonState(tree.zeros_like(params), tree.zeros_like(params))

    def momentum(others: tuple[int, ...], g: jax.Array, m: jax.Array, last: jax.Array) -> Any:
        """u, m and g of leaves that have these axes of a batch."""
        axes = tuple(i for i in range(g.ndim) if i not in others) if others else None
        c = correct(g, last, gamma * beta / (1 - beta), axes, axis_name)
        m = beta * m + (1 - beta) * c
        return beta * m + (1 - beta) * c if nesterov else m, m, overwrite_after(g, m)

    def kernel(stacks: Any, kept: Any) -> Any:
        return (orthogonalize(stacks[0], ns_steps, ns_coeffs, dtype=ns_dtype),), ()

    def update(updates: Any, state: MarsMuonState) -> Any:
        seen = views(updates, dimension_numbers, layout, vectors=True, axis_name=axis_name)
        ahead, mu, last = by_batch(momentum, seen, updates, state.mu, state.last)
        (turned,), _ = map_stacks(kernel, seen, (ahead,))
        return scaled(turned, seen, scale), MarsMuonState(mu, last)

    return init, update


def by_batch(f: Any, seen: Any, *trees: Any) -> tuple[Any, ...]:
    """f(axes of the batch, leaf, leaf, ...) for all leaves; as many trees as it is given."""
    treedef = tree.flatten(trees[0])[1]
    columns = [treedef.flatten_up_to(t) for t in trees]
    axes = [view.others if view else () for view in treedef.flatten_up_to(seen)]
    made: list[list[Any]] = [[None] * len(axes) for _ in trees]
    for others in dict.fromkeys(axes):
        members = [i for i, a in enumerate(axes) if a == others]
        part = [[c[i] for i in members] for c in columns]
        for column, new in zip(made, tree.map(partial(f, others), *part, outputs=len(trees))):
            for i, x in zip(members, new):
                column[i] = x
    return tuple(treedef.unflatten(column) for column in made)


@composition
def mars_muon(
    learning_rate: LearningRate,
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    gamma: NonNegative = 0.025,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: StoredMean = None,
    *,
    nesterov: bool = False,
    scale: str = "moonlight",
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """MARS-M on hidden matrices, Adam or another optimizer on the other leaves.

    What is not said here is as in `muon`.

    Args:
      learning_rate: η ≥ 0 of the matrices: with "moonlight" AdamW's.
      ns_coeffs: of Newton-Schulz.
      ns_steps: of it.
      beta: β in [0, 1).
      gamma: γ ≥ 0, how much of the gradient's change is added.
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
    >>> fnopt.mars_muon(1e-3, weight_decay=0.1).name
    'mars_muon'
    """
    rule = chain(
        scale_by_mars_muon(
            ns_coeffs,
            ns_steps,
            beta,
            gamma,
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
    return matrix_or_fallback("mars_muon", rule, fallback, dimension_numbers, layout, axis_name)
