"""PSGD-Kron: momentum whitened by two learnt factors, that are fitted and never decomposed.

    m ← βm + (1−β)G;  m̂ = m / (1−βᵗ)
    now and then, with V of normal numbers:
        H = m̂ + δ mean|m̂| V
        "procrustes"  T₁ = PH(PH)ᵀ,  c₁ = n,  T₂ = (PH)ᵀPH,  c₂ = m                for H (m, n)
                      ℓ = ‖T‖ + c,  L ← max(0.9L + 0.1ℓ, ℓ)
                      Q ← O(Q − μ (T − cI)Q / L)            O a small turn towards Q = Qᵀ > 0
        "triangular"  A = Q₁HQ₂ᵀ,  B = Q₁⁻ᵀVQ₂⁻¹
                      Q₁ ← Q₁ − μ triu(AAᵀ − BBᵀ)Q₁ / ‖AAᵀ + BBᵀ‖;  Q₂ with AᵀA, BᵀB
    u = Pm̂ = Q₁ᵀQ₁ m̂ Q₂ᵀQ₂;  u ← u min(1, r / RMS(u))
    θ ← θ − η(u + λθ)

A side longer than 8192, or a vector's, has a diagonal Q. The factors are renewed whenever the sum
of a probability p passes a whole number: by default at each of the first 500 steps, and ever less
often until after 4000 it is every 33rd or 34th.

Good for: networks whose gradients are far from white, as recurrent ones and transformers, by its
authors' tests.
Caveat: u has entries near one however small the gradients are, so that the rate must fall at the
end; η is about a third of Adam's. Sources differ: "triangular" is the papers' ("EQ") and the
authors' code's until 2025, "procrustes" the later one, without solves. There whether to renew is
drawn, here it is counted; δ is 3.45·10⁻⁴, the root of float32's resolution, in every dtype. V
depends on the key, the count and a matrix's shape alone. Of a matrix of zeros nothing is learnt.
Memory: for m and an (m, n) leaf's m² + n²: of a square matrix three values per parameter.
Source: Li 2015, arXiv 1512.04202; Pooladzandi and Li 2024, arXiv 2402.11858; and the authors' code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, reductions, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Bound, Decay, Fraction, Initial, LearningRate, NonNegative
from fnopt.linalg.blocks import as_placed
from fnopt.linalg.low_rank import beside, gathered
from fnopt.linalg.stacks import map_stacks
from fnopt.linalg.whitening import Sides, precondition, procrustes_step, triangular_step
from fnopt.matrices import View, views
from fnopt.optimizers.adam import adam
from fnopt.schedules.schedule import schedule
from fnopt.transforms.constraints import as_key
from fnopt.transforms.decay import add_decayed_weights
from fnopt.transforms.scaling import scale_by_learning_rate
from fnopt.wrappers.fallback import matrix_or_fallback, named

FORMS = ("procrustes", "triangular")


@schedule
def falling_probability(flat: int = 500, decay: float = 0.001, least: float = 0.03) -> Any:
    """clip(exp(−decay (t − flat)), least, 1): of an update of the factors."""
    return lambda count: jnp.clip(jnp.exp(-decay * (count - flat)), least, 1.0)


FALLING = falling_probability()
"""The probability of an update of the factors that PSGD-Kron has by default."""


class PsgdKronState(NamedTuple):
    """The count, int32 (); the key's data; the sum of p since it last passed a whole number,
    float32 (), or None for an `update_every`; m, like the params, None for a static b1 of 0; Q of
    each param: `Sides` of (batch, 1, n, n), (batch, 1, 1, n) for a diagonal, None for a vector's
    one row; with "procrustes" L: `Sides` of real (batch,). Split over the batch, if at all."""

    count: Any
    key: Any
    owed: Any
    mu: Any
    factors: Any
    bounds: Any


def fresh(view: View, p: jax.Array, scale: Any, longest: int) -> Sides:
    """Q = s^(1/k) I for the k sides that have a factor."""
    both = view.rows > 1
    size = jnp.asarray(scale ** (0.5 if both else 1.0), p.dtype)

    def start(n: int) -> jax.Array:
        one = jnp.eye(n, dtype=p.dtype)
        if n > longest or not both:
            one = jnp.ones((1, n), p.dtype)
        return view.vary(size * jnp.array(jnp.broadcast_to(one, (view.batch, 1, *one.shape))), p)

    return Sides(start(view.rows) if both else None, start(view.columns))


def bare(q: Sides) -> Sides:
    """Q as `fnopt.linalg.whitening` has it, (k, n, n) or (k, n)."""
    return jax.tree.map(lambda x: x[:, 0, 0] if x.shape[2] == 1 else x[:, 0], q)


def noise(key: jax.Array, seen: Any, like: Any) -> dict[Any, jax.Array]:
    """Standard normal numbers for each shape of a matrix, and dtype."""
    drawn: dict[Any, jax.Array] = {}
    for view, x in zip(jax.tree.leaves(seen), jax.tree.leaves(like), strict=True):
        shape = view.rows, view.columns
        if (shape, x.dtype) not in drawn:
            drawn[shape, x.dtype] = jax.random.normal(key, shape, x.dtype)
    return drawn


@gradient_transformation
def scale_by_psgd_kron(
    b1: Decay = 0.9,
    *,
    key: Any = None,
    seed: Any = None,
    form: str = "procrustes",
    preconditioner_lr: Fraction = 0.1,
    preconditioner_init_scale: Initial = 1.0,
    update_probability: Fraction = FALLING,
    update_every: int | None = None,
    max_size_triangular: int = 8192,
    damping: NonNegative = 3.45e-4,
    max_rms: Bound = 1.1,
    layout: str = "in_out",
    dimension_numbers: Any = None,
    axis_name: Any = None,
) -> Any:
    """u ← Pm̂ min(1, r / RMS(Pm̂)). A vector is a matrix of one row. See `psgd_kron`.

    Memory: one value per parameter, and m² + n² for an (m, n) leaf.
    """
    key = as_key("psgd_kron", key, seed)
    if form not in FORMS:
        raise ValueError(f"psgd_kron: form must be one of {', '.join(FORMS)}, got {form!r}")
    if update_every is not None and update_every < 1:
        raise ValueError(f"psgd_kron: update_every must be at least 1, got {update_every}")
    no_mean, bounded = tree.is_static_zero(b1), form == "procrustes"

    def seen(leaves: Any) -> Any:
        return views(leaves, dimension_numbers, layout, vectors=True, axis_name=axis_name)

    def init(params: Any) -> PsgdKronState:
        def factors(p: jax.Array, view: View | None) -> Any:
            if view is None:
                return None
            return fresh(view, p, preconditioner_init_scale, max_size_triangular)

        def bounds(p: jax.Array, view: View | None) -> Any:
            if view is None or not bounded:
                return None
            real = jnp.finfo(p.dtype).dtype
            zeros = [view.vary(jnp.zeros(view.batch, real), p) for _ in range(2)]
            return Sides(zeros[0] if view.rows > 1 else None, zeros[1])

        view = seen(params)
        return PsgdKronState(
            tree.zero_count(),
            jnp.array(jax.random.key_data(key)),  # its own: a state may be donated
            None if update_every else jnp.zeros((), jnp.float32),
            None if no_mean else tree.zeros_like(params),
            jax.tree.map(factors, params, view),
            jax.tree.map(bounds, params, view),
        )

    def learn(drawn: Any, stacks: Any, kept: Any) -> Any:
        g, q = stacks[0], bare(kept[0])
        v = drawn[g.shape[1:], g.dtype][None]
        size = jnp.mean(jnp.abs(g), axis=(-2, -1), keepdims=True)
        h = g + damping * size.astype(g.dtype) * v
        new: Any
        if bounded:
            new = procrustes_step(h, q, kept[1], preconditioner_lr)
        else:
            new = (triangular_step(h, v, q, preconditioner_lr),)
        finite = [
            jnp.all(jnp.isfinite(x).reshape(x.shape[0], -1), axis=1) for x in jax.tree.leaves(new)
        ]
        good = jnp.all(jnp.stack(finite), axis=0) & (size[:, 0, 0] > 0)

        def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(
                good.reshape((-1,) + (1,) * (old.ndim - 1)), new.reshape(old.shape), old
            )

        return (), jax.tree.map(chosen, new, tuple(kept))

    def whiten(stacks: Any, kept: Any) -> Any:
        u = precondition(stacks[0], bare(kept[0]))
        rms = reductions.axis_norm(u, (-2, -1)) / (u.shape[-2] * u.shape[-1]) ** 0.5
        over = rms > max_rms
        factor = jnp.where(over, max_rms / jnp.where(over, rms, 1), 1)
        return (factor.astype(u.dtype) * u,), ()

    def update(updates: Any, state: PsgdKronState) -> Any:
        t, view = tree.increment(state.count), seen(updates)
        debias = tree.debias(b1, t)

        def momentum(g: jax.Array, m: Any) -> Any:
            g = tree.saturate(g)
            m = g if no_mean else b1 * m + (1 - b1) * g
            return debias * m, m

        means = tree.nones_like(updates) if no_mean else state.mu
        ahead, mu = tree.map(momentum, updates, means, outputs=2)
        if update_every is None:
            owed = state.owed + update_probability
            due = owed >= 1
            owed = jnp.where(due, owed - 1, owed)
        else:
            owed, due = None, state.count % update_every == 0
        before = (state.factors, state.bounds) if bounded else (state.factors,)
        old = jax.tree.map(lambda x: gathered(x) if x.ndim > 1 else x, before)

        def renewed() -> Any:
            impl = jax.random.key_impl(key)
            now = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=impl), state.count)
            matrices = jax.lax.stop_gradient(ahead)
            of_a_kind = jax.tree.map(lambda v, x: None if v is None else x, view, matrices)
            drawn = noise(now, view, of_a_kind)

            def kernel(stacks: Any, kept: Any) -> Any:
                return learn(drawn, stacks, kept)

            return map_stacks(kernel, view, (matrices,), old)[1]

        kept = mesh_axes.cond(due, renewed, lambda: old)
        kept = as_placed(kept, old)
        turned = map_stacks(whiten, view, (ahead,), (kept[0],))[0][0]
        kept = jax.tree.map(beside, kept, before)
        bounds = kept[1] if bounded else state.bounds
        new = owed, None if no_mean else mu, kept[0], bounds
        return turned, PsgdKronState(t, state.key, *new)

    return init, update


@composition
def psgd_kron(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    *,
    key: Any = None,
    seed: Any = None,
    form: str = "procrustes",
    preconditioner_lr: Fraction = 0.1,
    preconditioner_init_scale: Initial = 1.0,
    update_probability: Fraction = FALLING,
    update_every: int | None = None,
    max_size_triangular: int = 8192,
    damping: NonNegative = 3.45e-4,
    max_rms: Bound = 1.1,
    layout: str = "in_out",
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """PSGD-Kron on hidden matrices, Adam or another optimizer on the other leaves.

    Args:
      learning_rate: η ≥ 0 of the matrices.
      b1: β in [0, 1). A static 0 keeps no m.
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      mask: which of the matrices decay: a tree of bools with the params' structure or a prefix of
        it, or a function of the params that returns one.
      key: a PRNG key, or an int to make one from, for V.
      seed: another word for an int key.
      form: how the factors are learnt: "procrustes" or "triangular".
      preconditioner_lr: μ in [0, 1].
      preconditioner_init_scale: s ≥ 0, what P is times the identity at the start.
      update_probability: p in [0, 1], how often the factors are renewed: a schedule, by default.
      update_every: in its place, renew them at every so many-th step, the first one too.
      max_size_triangular: the longest side that has a whole matrix; a longer one has a diagonal.
      damping: δ ≥ 0, how much noise is added to what the factors learn from.
      max_rms: r > 0, of a matrix's step; infinite for no limit.
      layout: "in_out" for kernels that stand on the right (x @ w), "out_in" for PyTorch's.
      dimension_numbers: which leaves are matrices, and their axes: a tree like the params of
        `MatrixDimensionNumbers`, with None for the fallback's leaves, or a function of the params
        that returns one; None to read it off paths and shapes, see `matrix_report`.
      fallback: the optimizer of the other leaves; None for `adam(3e-4)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Raises:
      ValueError: no key, an unknown form or layout, a count below one, or dimension numbers that
        do not fit.

    >>> import fnopt
    >>> fnopt.psgd_kron(3e-4, key=0, weight_decay=0.1).name
    'psgd_kron'
    """
    rule = chain(
        scale_by_psgd_kron(
            b1,
            key=key,
            seed=seed,
            form=form,
            preconditioner_lr=preconditioner_lr,
            preconditioner_init_scale=preconditioner_init_scale,
            update_probability=update_probability,
            update_every=update_every,
            max_size_triangular=max_size_triangular,
            damping=damping,
            max_rms=max_rms,
            layout=layout,
            dimension_numbers=dimension_numbers,
            axis_name=axis_name,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    if fallback is None:
        fallback = adam(named(3e-4))
    return matrix_or_fallback("psgd_kron", rule, fallback, dimension_numbers, layout, axis_name)
