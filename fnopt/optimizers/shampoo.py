"""Shampoo: the gradient whitened from both sides, by roots of its rows' and columns' sums.

    L ← β₂L + wGGᵀ,  R ← β₂R + wGᵀG               w = 1−β₂, or 1 for β₂ = 1
    m̂ = (β₃m + (1−β₃)G) / (1−β₃β₁ᵗ⁻¹);  m ← β₁m + (1−β₁)G
    every f steps:  L̄ = (L/b + ελmax I)^(−1/4),  R̄ likewise    b = 1−β₂ᵗ, or 1 for β₂ = 1
    P = L̄ m̂ R̄
    u = P ‖A‖ / ‖P‖, of A = the grafted method's step from m̂;  u = A before step s
    θ ← θ − η(u + λθ)

A matrix is cut into blocks of at most 1024 rows and columns, each with its own L, R and norms. A
side of length one has no factor, and the other's root is then the second one.

Good for: large batches and long runs; first in AlgoPerf's external tuning (2024).
Caveat: sources differ. Here ε is relative to the largest eigenvalue, so that gradients of any size
are whitened alike, and a root that came out badly is not taken, as in the authors' JAX code; L and
R start at zero with a bias correction, as in PyTorch's. β₂ = 1 and `grafting="none"` are the
paper's, a sum that is never forgotten. `grafting` lends a method's step length, by default Adam's,
so that Adam's rates carry over. On a CPU the decompositions are slow: choose a larger f. Axes are
merged into two: a convolution's window and inputs, or those that `dimension_numbers` names; stacked
layers are taken one by one.
Memory: for m, the graft's second moment and an (m, n) block's 2(m² + n²): two values per parameter
and, of a square matrix, four more.
Source: Gupta, Koren and Singer 2018, arXiv 1802.09568; Anil et al. 2020, arXiv 2002.09018; Shi et
al. 2023, arXiv 2309.06497.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, Fraction, LearningRate, NonNegative
from fnopt.linalg.blocks import as_placed, cut, join, sides
from fnopt.linalg.eigen import HIGHEST
from fnopt.linalg.roots import METHODS, inverse_root
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import View, views
from fnopt.optimizers.adam import adam
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.fallback import matrix_or_fallback, named

GRAFTS = ("none", "sgd", "adagrad", "rmsprop", "adam")


class Factors(NamedTuple):
    """Of a leaf's blocks: (batch, blocks, n, n) for each side, None for one of length one.

    Split over the batch or the blocks, if at all.
    """

    left: Any
    right: Any


class ShampooState(NamedTuple):
    """The count, int32 (); m, like the params, None for a static b1 of 0; the graft's second
    moment, real, like the params, or None; L and R, and their roots: for each param `Factors`."""

    count: Any
    mu: Any
    nu: Any
    factors: Any
    roots: Any


def fresh(view: View, block_size: int, like: jax.Array, *, one: bool) -> Factors:
    """Factors of zeros, or roots that are the identity."""
    (r, a), (c, b) = sides(view.rows, block_size), sides(view.columns, block_size)

    def start(n: int) -> jax.Array:
        shape = (view.batch, r * c, n, n)
        eye = jnp.eye(n, dtype=like.dtype) if one else jnp.zeros((n, n), like.dtype)
        return view.vary(jnp.array(jnp.broadcast_to(eye, shape)), like)

    return Factors(start(a) if view.rows > 1 else None, start(b))


def gathered(g: jax.Array, old: Factors, b2: Any, part: Any) -> Factors:
    """L ← β₂L + wGGᴴ, R ← β₂R + wGᴴG."""

    def sum_of(old: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return b2 * old + part * jnp.matmul(a, b, precision=HIGHEST)

    h = jnp.conj(g.mT)
    left = None if old.left is None else sum_of(old.left, g, h)
    return Factors(left, sum_of(old.right, h, g))


def rooted(factors: Factors, old: Factors, grown: Any, eps: Any, method: str) -> Factors:
    """(L/b + ελmax I)^(−1/4) and R's; an old one where the new one is bad. A constant to
    derivatives."""
    p = 2 if factors.left is None else 4

    def one(a: jax.Array, old: jax.Array) -> jax.Array:
        x, error = inverse_root(jax.lax.stop_gradient(a), p, jax.lax.stop_gradient(eps), method)
        scale = jnp.asarray(grown ** (1 / p), error.dtype).astype(x.dtype)
        return jnp.where((error <= 0.1)[..., None, None], scale * x, old)

    return jax.tree.map(one, factors, old)


def whitened(m: jax.Array, roots: Factors) -> jax.Array:
    """P = L̄ m̂ R̄."""
    p = jnp.matmul(m, roots.right)
    return p if roots.left is None else jnp.matmul(roots.left, p)


def as_long_as(graft: jax.Array, p: jax.Array) -> jax.Array:
    """P ‖A‖ / ‖P‖ of each block."""
    norm, wanted = (reductions.axis_norm(x, (-2, -1)) for x in (p, graft))
    return p * (wanted / jnp.where(norm == 0, jnp.ones_like(norm), norm)).astype(p.dtype)


@gradient_transformation
def scale_by_shampoo(
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    b3: Decay | None = None,
    eps: NonNegative = 1e-6,
    *,
    grafting: str = "adam",
    graft_b2: Decay = 0.999,
    graft_eps: NonNegative = 1e-8,
    update_every: int = 10,
    start_preconditioning_step: int | None = None,
    block_size: int = 1024,
    root: str = "eigh",
    layout: str = "in_out",
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← P ‖A‖ / ‖P‖. A vector is a matrix of one row. See `shampoo`.

    Memory: two values per parameter, and 2(m² + n²) for an (m, n) block.
    """
    begin = update_every if start_preconditioning_step is None else start_preconditioning_step
    check(grafting, root, update_every=update_every, block_size=block_size)
    no_mean, no_square = tree.is_static_zero(b1), grafting in ("none", "sgd")
    fixed = isinstance(b2, int | float)
    part = (1.0 if b2 == 1 else 1 - b2) if fixed else jnp.where(b2 == 1, 1.0, 1 - b2)
    keep = (1.0, 1.0) if grafting == "adagrad" else (graft_b2, 1 - graft_b2)

    def seen(leaves: Any) -> Any:
        return views(leaves, dimension_numbers, layout, vectors=True, axis_name=axis_name)

    def init(params: Any) -> ShampooState:
        def start(one: bool) -> Any:
            def of(p: jax.Array, view: View | None) -> Any:
                return None if view is None else fresh(view, block_size, p, one=one)

            return jax.tree.map(of, params, seen(params))

        return ShampooState(
            tree.zero_count(),
            None if no_mean else tree.zeros_like(params),
            None if no_square else tree.real_zeros_like(params),
            start(False),
            start(True),
        )

    def update(updates: Any, state: ShampooState) -> Any:
        t = tree.increment(state.count)
        due = (t >= begin) & ((t - begin) % update_every == 0)
        grown = tree.bias_correction(b2, t)
        grown = (1.0 if b2 == 1 else grown) if fixed else jnp.where(b2 == 1, 1.0, grown)
        look = b1 if b3 is None else b3
        debias = 1.0 if no_mean else 1 / (1 - look + look * tree.bias_correction(b1, t - 1))
        square_debias = tree.debias(graft_b2, t) if grafting == "adam" else 1.0

        def step(g: jax.Array, m: Any, v: Any) -> Any:
            g = tree.saturate(g)
            ahead = g if no_mean else debias * (look * m + (1 - look) * g)
            m = m if no_mean else b1 * m + (1 - b1) * g
            if no_square:
                return ahead, ahead, m, v
            v = keep[0] * v + keep[1] * tree.squared(g)
            return ahead, ahead / (tree.sqrt(square_debias * v) + graft_eps), m, v

        def gather(stacks: Any, kept: Any) -> Any:
            return (), (gathered(cut(tree.saturate(stacks[0]), block_size), kept[0], b2, part),)

        def renew(stacks: Any, kept: Any) -> Any:
            return (), (rooted(kept[0], kept[1], grown, eps, root),)

        def turn(stacks: Any, kept: Any) -> Any:
            graft, ahead = (cut(x, block_size) for x in stacks)
            p = whitened(ahead, kept[0])
            u = p if grafting == "none" else as_long_as(graft, p)
            u = u if begin <= 1 else jnp.where(t >= begin, u, graft)
            rows, columns = stacks[0].shape[1:]
            return (join(u, rows, columns, block_size),), ()

        view = seen(updates)
        mu = tree.nones_like(updates) if no_mean else state.mu
        nu = tree.nones_like(updates) if no_square else state.nu
        ahead, graft, mu, nu = tree.map(step, updates, mu, nu, outputs=4)
        factors = map_stacks(gather, view, (updates,), (state.factors,))[1][0]
        factors = as_placed(factors, state.factors)

        def renewed() -> Any:
            given = (factors, state.roots)
            return map_stacks(renew, view, (updates,), given)[1][0]

        roots = as_placed(mesh_axes.cond(due, renewed, lambda: state.roots), state.roots)
        turned = map_stacks(turn, view, (graft, ahead), (roots,))[0][0]
        new = None if no_mean else mu, None if no_square else nu
        return turned, ShampooState(t, *new, factors, roots)

    return init, update


def check(grafting: str, root: str, **counts: int) -> None:
    """An error for a word that there is not, or a count below one."""
    if grafting not in GRAFTS:
        raise ValueError(f"shampoo: grafting must be one of {', '.join(GRAFTS)}, got {grafting!r}")
    if root not in METHODS:
        raise ValueError(f"shampoo: root must be one of {', '.join(METHODS)}, got {root!r}")
    for word, value in counts.items():
        if value < 1:
            raise ValueError(f"shampoo: {word} must be at least 1, got {value}")


@composition
def shampoo(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    b3: Decay | None = None,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    *,
    grafting: str = "adam",
    graft_b2: Decay = 0.999,
    graft_eps: NonNegative = 1e-8,
    update_every: int = 10,
    start_preconditioning_step: int | None = None,
    block_size: int = 1024,
    root: str = "eigh",
    layout: str = "in_out",
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """Shampoo on hidden matrices, Adam or another optimizer on the other leaves.

    Args:
      learning_rate: η ≥ 0 of the matrices: with a graft that method's.
      b1: β₁ in [0, 1). A static 0 keeps no m.
      b2: β₂ in [0, 1]; 1 for sums in place of means.
      b3: β₃ in [0, 1), of the mean that the step is made from; None for β₁.
      eps: ε ≥ 0, times a factor's largest eigenvalue.
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      mask: which of the matrices decay: a tree of bools with the params' structure or a prefix of
        it, or a function of the params that returns one.
      grafting: whose step length a block takes: "none", "sgd", "adagrad", "rmsprop" or "adam".
      graft_b2: the decay of the second moment of "rmsprop" and "adam".
      graft_eps: added to its root.
      update_every: f ≥ 1, the steps from one computation of the roots to the next.
      start_preconditioning_step: s, the step of the first one; None for f.
      block_size: the most rows and columns of a block.
      root: "eigh" or "newton", see `fnopt.linalg.roots`.
      layout: "in_out" for kernels that stand on the right (x @ w), "out_in" for PyTorch's.
      dimension_numbers: which leaves are matrices, and their axes: a tree like the params of
        `MatrixDimensionNumbers`, with None for the fallback's leaves, or a function of the params
        that returns one; None to read it off paths and shapes, see `matrix_report`.
      fallback: the optimizer of the other leaves; None for `adam(3e-4)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Raises:
      ValueError: an unknown graft, root or layout, a count below one, or dimension numbers that do
        not fit.

    >>> import fnopt
    >>> fnopt.shampoo(1e-3, weight_decay=0.1).name
    'shampoo'
    """
    rule = chain(
        scale_by_shampoo(
            b1,
            b2,
            b3,
            eps,
            grafting=grafting,
            graft_b2=graft_b2,
            graft_eps=graft_eps,
            update_every=update_every,
            start_preconditioning_step=start_preconditioning_step,
            block_size=block_size,
            root=root,
            layout=layout,
            dimension_numbers=dimension_numbers,
            axis_name=axis_name,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if fallback is None:
        fallback = adam(named(3e-4))
    return matrix_or_fallback("shampoo", rule, fallback, dimension_numbers, layout, axis_name)
