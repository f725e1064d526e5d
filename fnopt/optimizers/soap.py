"""SOAP: Adam in the slowly turning basis in which Shampoo's factors are diagonal.

    at the first step:  L = (1−β)GGᵀ, R = (1−β)GᵀG, Q_L and Q_R their eigenvectors; θ stays
    later:
    G′ = Q_LᵀG Q_R
    m′ ← β₁m′ + (1−β₁)G′,  v ← β₂v + (1−β₂)G′²
    u = Q_L (m̂′ / (√v̂ + ε)) Q_Rᵀ               bias corrections count from the second gradient
    L ← βL + (1−β)GGᵀ,  R ← βR + (1−β)GᵀG
    every f steps:  Q_L ← the orthogonal factor of L Q_L, its columns sorted by diag(Q_LᵀLQ_L),
                    Q_R likewise; v's rows and columns go along, m′ is turned into the new bases
    θ ← θ − η(u + λθ)

Good for: pretraining of language models, in fewer steps than AdamW by its authors' tests and by
independent ones (arXiv 2509.02046).
Caveat: six products of matrices a step and two QR decompositions every f-th: worth it where the
gradients cost more. The eigenvectors of a first gradient of low rank are arbitrary in part; here
a small diagonal decides, so that equal runs are equal. The
authors decay after the step, θ ← (1−ηλ)(θ − ηu), and not at the first one. A side longer than
`max_precond_dim` keeps its basis; with 0 the method is Adam, one gradient late, and so it is for
vectors. Kernels of convolutions are flattened, stacked layers are taken one by one.
Memory: two values per parameter and 2(m² + n²) for an (m, n) matrix: six of a square one.
Source: Vyas et al. 2024, arXiv 2409.11321, and the authors' code.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.linalg.blocks import as_placed
from fnopt.linalg.eigen import HIGHEST, eigenbasis, subspace_iteration
from fnopt.linalg.stacks import map_stacks
from fnopt.matrices import View, views
from fnopt.optimizers.adam import adam
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.fallback import matrix_or_fallback, named


class Sides(NamedTuple):
    """Of a leaf's matrices: (batch, 1, rows, rows) and (batch, 1, columns, columns), the shorter
    side first; None for a side that keeps its basis. Split over the batch, if at all."""

    left: Any
    right: Any


class SoapState(NamedTuple):
    """The count, int32 (); m′, like the params, None for a static b1 of 0; v, real, like them; L
    and R, and Q_L and Q_R: for each param `Sides`, None where there are none."""

    count: Any
    mu: Any
    nu: Any
    factors: Any
    bases: Any


def rotate(x: jax.Array, q: Sides) -> jax.Array:
    """QᴴL x Q_R."""
    x = x if q.left is None else jnp.matmul(jnp.conj(q.left.mT), x)
    return x if q.right is None else jnp.matmul(x, q.right)


def rotate_back(x: jax.Array, q: Sides) -> jax.Array:
    """Q_L x Q_Rᴴ."""
    x = x if q.left is None else jnp.matmul(q.left, x)
    return x if q.right is None else jnp.matmul(x, jnp.conj(q.right.mT))


def gathered(g: jax.Array, old: Sides, beta: Any) -> Sides:
    """L ← βL + (1−β)GGᴴ, R ← βR + (1−β)GᴴG."""

    def mean(old: Any, a: jax.Array, b: jax.Array) -> Any:
        if old is None:
            return None
        return beta * old + (1 - beta) * jnp.matmul(a, b, precision=HIGHEST)

    h = jnp.conj(g.mT)
    return Sides(mean(old.left, g, h), mean(old.right, h, g))


def first_bases(factors: Sides, _: Sides) -> tuple[Sides, Sides]:
    """Eigenvectors, the largest first, and no order: there are no moments yet."""
    found = jax.tree.map(lambda a: eigenbasis(jax.lax.stop_gradient(a)), factors)
    return found, Sides(None, None)


def next_bases(factors: Sides, bases: Sides) -> tuple[Sides, Sides]:
    """One step of subspace iteration, and the order of the columns. A constant to derivatives."""

    def one(a: Any, q: Any) -> Any:
        if a is None:
            return None, None
        return subspace_iteration(jax.lax.stop_gradient(a), jax.lax.stop_gradient(q))

    (left, rows), (right, columns) = map(one, factors, bases)
    return Sides(left, right), Sides(rows, columns)


def permuted(v: jax.Array, order: Sides) -> jax.Array:
    """v with its rows and columns in the order of the bases' columns."""
    if order.left is not None:
        v = jnp.take_along_axis(v, order.left[..., :, None], axis=-2)
    if order.right is not None:
        v = jnp.take_along_axis(v, order.right[..., None, :], axis=-1)
    return v


def plainly(kept: Any) -> Any:
    """(k, 1, n, n) as (k, n, n): with the axis no factor has a parameter's dimensions."""
    return jax.tree.map(lambda x: x[:, 0], kept)


def singly(kept: Any) -> Any:
    """(k, n, n) as (k, 1, n, n)."""
    return jax.tree.map(lambda x: x[:, None], kept)


def fresh(view: View | None, like: jax.Array, longest: int, *, one: bool) -> Sides | None:
    """Factors of zeros, or bases that are the identity."""
    if view is None:
        return None

    def start(n: int) -> Any:
        eye = jnp.eye(n, dtype=like.dtype) if one else jnp.zeros((n, n), like.dtype)
        if n > longest:
            return None
        return view.vary(jnp.array(jnp.broadcast_to(eye, (view.batch, 1, n, n))), like)

    return Sides(start(view.rows), start(view.columns))


@gradient_transformation
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    *,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
    normalize: bool = False,
    layout: str = "in_out",
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← Q_L (m̂′ / (√v̂ + ε)) Q_Rᵀ; zero at the first step. Adam for vectors. See `soap`.

    Memory: two values per parameter, and 2(m² + n²) for an (m, n) matrix.
    """
    if precondition_frequency < 1 or max_precond_dim < 0:
        raise ValueError(
            "soap: precondition_frequency must be at least 1 and max_precond_dim at least 0, got "
            f"{precondition_frequency} and {max_precond_dim}"
        )
    no_mean = tree.is_static_zero(b1)
    beta = b2 if shampoo_beta is None else shampoo_beta

    def seen(leaves: Any) -> Any:
        """A view of what has a basis."""

        def of(_: Any, view: View | None) -> View | None:
            return view if view and 1 < view.rows <= max_precond_dim else None

        return jax.tree.map(
            of, leaves, views(leaves, dimension_numbers, layout, axis_name=axis_name)
        )

    def init(params: Any) -> SoapState:
        def start(one: bool) -> Any:
            return jax.tree.map(
                lambda p, view: fresh(view, p, max_precond_dim, one=one), params, seen(params)
            )

        mu = None if no_mean else tree.zeros_like(params)
        return SoapState(
            tree.zero_count(), mu, tree.real_zeros_like(params), start(False), start(True)
        )

    def update(updates: Any, state: SoapState) -> Any:
        count = tree.increment(state.count)
        t = jnp.maximum(count - 1, 1)
        begun = tree.weak(jnp.where(count > 1, 1.0, 0.0))
        c1, c2 = tree.debias(b1, t), tree.debias(b2, t)

        def adam(g: jax.Array, m: Any, v: jax.Array) -> tuple[Any, ...]:
            v = b2 * v + begun * (1 - b2) * tree.squared(g)
            m = begun * g if m is None else b1 * m + begun * (1 - b1) * g
            return c1 * m / (tree.sqrt(c2 * v) + eps), m, v

        def plain(g: jax.Array, m: Any, v: jax.Array) -> tuple[Any, ...]:
            u, m, v = adam(tree.saturate(g), m, v)
            return unit(u, tuple(range(u.ndim)), axis_name) if normalize else u, m, v

        def turned(stacks: Any, kept: Any) -> Any:
            (g, v, *m), (factors, bases) = stacks, plainly(kept)
            g = tree.saturate(g)
            u, new, v = adam(rotate(g, bases), m[0] if m else None, v)
            u = rotate_back(u, bases)
            u = unit(u, (-2, -1)) if normalize else u
            return (u, v, *([new] if m else [])), singly((gathered(g, factors, beta),))

        def renew(next_of: Any) -> Any:
            def kernel(stacks: Any, kept: Any) -> Any:
                (v, *m), (old, factors) = stacks, plainly(kept)
                bases, order = next_of(factors, old)
                m = [rotate(rotate_back(x, old), bases) for x in m]
                return (permuted(v, order), *m), singly((bases,))

            def run() -> Any:
                new, held = map_stacks(kernel, view, moments, (state.bases, factors))
                return new, held[0]

            return run

        view = seen(updates)
        mu = tree.nones_like(updates) if no_mean else state.mu
        alone = (beside_matrices(x, view) for x in (updates, mu, state.nu))
        alone = tree.map(plain, *alone, outputs=3)
        moments: Any = (state.nu,) if no_mean else (state.nu, mu)
        with jax.numpy_dtype_promotion("standard"):  # complex matrices meet their real v
            (moved, *moments), held = map_stacks(
                turned, view, (updates, *moments), (state.factors, state.bases)
            )
            factors = as_placed(held[0], state.factors)
            cases = [lambda: (tuple(moments), state.bases), renew(first_bases), renew(next_bases)]
            due = jnp.where((count - 1) % precondition_frequency == 0, 2, 0)
            moments, bases = mesh_axes.switch(jnp.where(count == 1, 1, due), cases)
        mu = None if no_mean else as_placed(together(moments[1], alone[1], view), mu)
        nu = as_placed(together(moments[0], alone[2], view), state.nu)
        bases = as_placed(bases, state.bases)
        return together(moved, alone[0], view), SoapState(count, mu, nu, factors, bases)

    return init, update


def beside_matrices(x: Any, view: Any) -> Any:
    """The leaves that have no view, None in the places of the others."""
    return jax.tree.map(
        lambda view, leaf: leaf if view is None else None, view, x, is_leaf=tree.is_none
    )


def together(matrices: Any, others: Any, view: Any) -> Any:
    """One tree: a leaf with a view from the first, without one from the second."""
    return jax.tree.map(lambda a, view, b: b if view is None else a, matrices, view, others)


def unit(u: jax.Array, axes: tuple[int, ...], axis_name: Any = None) -> jax.Array:
    """u / RMS(u); zero for zero."""
    norm = reductions.axis_norm(u, axes, axis_name)
    size = math.prod(mesh_axes.whole_shape(u, axis_name)[i] for i in axes)
    return u * (math.sqrt(size) / jnp.where(norm == 0, jnp.ones_like(norm), norm)).astype(u.dtype)


@composition
def soap(
    learning_rate: LearningRate,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Any = None,
    *,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
    normalize: bool = False,
    layout: str = "in_out",
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """SOAP on hidden matrices, Adam or another optimizer on the other leaves.

    Args:
      learning_rate: η ≥ 0 of the matrices.
      b1: β₁ in [0, 1). A static 0 keeps no m.
      b2: β₂ in [0, 1).
      shampoo_beta: β in [0, 1), of the factors; None for β₂.
      eps: ε ≥ 0, outside the root.
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      mask: which of the matrices decay: a tree of bools with the params' structure or a prefix of
        it, or a function of the params that returns one.
      precondition_frequency: f ≥ 1, the steps from one renewal of the bases to the next.
      max_precond_dim: the longest side that gets a basis.
      normalize: divide each matrix's u by its root mean square.
      layout: "in_out" for kernels that stand on the right (x @ w), "out_in" for PyTorch's.
      dimension_numbers: which leaves are matrices, and their axes: a tree like the params of
        `MatrixDimensionNumbers`, with None for the fallback's leaves, or a function of the params
        that returns one; None to read it off paths and shapes, see `matrix_report`.
      fallback: the optimizer of the other leaves; None for `adam(3e-3, b1=0.95, b2=0.95)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Raises:
      ValueError: an unknown layout, a frequency below one, or dimension numbers that do not fit.

    >>> import fnopt
    >>> fnopt.soap(3e-3, weight_decay=0.1).name
    'soap'
    """
    rule = chain(
        scale_by_soap(
            b1,
            b2,
            shampoo_beta,
            eps,
            precondition_frequency=precondition_frequency,
            max_precond_dim=max_precond_dim,
            normalize=normalize,
            layout=layout,
            dimension_numbers=dimension_numbers,
            axis_name=axis_name,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if fallback is None:
        fallback = adam(named(3e-3), b1=0.95, b2=0.95)
    return matrix_or_fallback("soap", rule, fallback, dimension_numbers, layout, axis_name)
