"""MuonClip: Muon, then queries and keys scaled down in heads whose attention logits are too large.

    θ ← Muon's step                                with Moonlight's scale and a weight decay of 0.1
    γ ← min(1, τ / S)                              for each head, S its largest logit |qᵀk|/√d
    W_q ← γ^α W_q;   W_k ← γ^(1−α) W_k             the head's part, its biases too

A logit of the head then is γ times what it was. S is the caller's to measure, in the forward pass
that gave the gradients:

    updates, state = optimizer.update(grads, state, params, max_logits={"layer_0/attention": s})

with s of one number for each head, of (layers, heads) where layers are stacked.

Good for: large transformers trained by Muon, whose logits grow, by its authors' account.
Caveat: without `max_logits` nothing is clipped. The momentum is not scaled with the weights. Keys
that several heads share cannot be scaled for one of them: say alpha=1, and the queries take all of
γ; so it is with multi-head latent attention, where a rotary query has alpha=1 and the other parts
have 0.5 (chain one `clip_attention_logits` for each).
Memory: Muon's.
Source: Kimi Team 2025, arXiv 2507.20534.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

from fnopt import mesh_axes, tree
from fnopt.core import GradientTransformation, chain, composition, gradient_transformation
from fnopt.hyperparameters import Decay, Fraction, LearningRate, NonNegative, Positive
from fnopt.leaves import is_inexact
from fnopt.optimizers.muon import muon
from fnopt.storage import StoredMean

QUERY = r"query|q_proj"
KEY = r"key|k_proj"


def _factor(path: str, shape: Any, factors: jax.Array, axis: int) -> jax.Array:
    """The factors of heads, (..., heads), as they meet a leaf of this shape."""
    lead, heads = factors.shape[:-1], factors.shape[-1]
    if len(shape) <= len(lead) or tuple(shape[: len(lead)]) != lead or shape[axis] % heads:
        raise ValueError(
            f"qk_clip: {path} of shape {tuple(shape)} does not fit max_logits of shape "
            f"{factors.shape}: (..., heads), where heads divide axis {axis}"
        )
    wide = [1] * len(shape)
    wide[: len(lead)] = lead
    wide[axis] = shape[axis]
    return jnp.repeat(factors, shape[axis] // heads, axis=-1).reshape(wide)


def head_factors(
    params: Any,
    max_logits: Any,
    threshold: Any = 100.0,
    alpha: Any = 0.5,
    query: str | None = QUERY,
    key: str | None = KEY,
    *,
    layout: str = "in_out",
    heads_axis: int | None = None,
    axis_name: Any = None,
) -> Any:
    """γ^α for each query, γ^(1−α) for each key, 1s in the place of axes without heads; None for
    leaves that are neither. See `qk_clip`."""
    given = {
        tree.path_name(path): jnp.asarray(s)
        for path, s in jax.tree_util.tree_flatten_with_path(max_logits)[0]
    }
    parts = {query: alpha, key: 1 - alpha}
    outputs: dict[str, int] = {}
    seen: set[str] = set()
    pairs, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=tree.is_none)
    found: list[Any] = [None] * len(pairs)
    for i, (keys, x) in enumerate(pairs):
        path = tree.path_name(keys)
        above = [at for at in given if f"{path}/".startswith(at and f"{at}/")]
        given_for = {pattern: a for pattern, a in parts.items() if pattern is not None}
        powers = [a for pattern, a in given_for.items() if re.search(pattern, path, re.I)]
        if not above or not powers:
            continue
        if len(powers) > 1:
            raise ValueError(f"qk_clip: {path} is a query and a key by {query!r} and {key!r}")
        at = max(above, key=len)
        seen.add(at)
        if not is_inexact(x) or tree.is_static_zero(powers[0]):
            continue
        s = given[at].astype(jnp.float64 if jnp.finfo(x.dtype).bits > 32 else jnp.float32)
        over = (s > threshold) & jnp.isfinite(s)
        gamma = threshold / jnp.where(over, s, threshold)
        turned = layout == "out_in" and x.ndim > s.ndim
        axis = (-2 if turned else -1) if heads_axis is None else heads_axis
        shape = mesh_axes.whole_shape(x, axis_name)
        factor = _factor(path, shape, gamma ** powers[0], axis)
        cut = mesh_axes.split_axes(x, axis_name) if factor.shape[0] > 1 else ()
        found[i] = mesh_axes.part(factor, cut)
        if outputs.setdefault(at, shape[axis]) != shape[axis]:
            raise ValueError(
                f"qk_clip: {path} of shape {shape} has {shape[axis]} outputs, not "
                f"{outputs[at]} as others of {at!r}; for keys that heads share say alpha=1"
            )
    if given.keys() - seen:
        unused = min(given.keys() - seen)
        raise ValueError(f"qk_clip: no query or key under {unused!r} of max_logits")
    return jax.tree.unflatten(treedef, found)


def qk_clip(
    params: Any,
    max_logits: Any,
    threshold: Any = 100.0,
    alpha: Any = 0.5,
    query: str | None = QUERY,
    key: str | None = KEY,
    *,
    layout: str = "in_out",
    heads_axis: int | None = None,
    axis_name: Any = None,
) -> Any:
    """The params, with queries and keys scaled down in heads whose logits exceed the threshold.

    Args:
      params: a tree of arrays, as after the optimizer's step.
      max_logits: each head's largest logit: arrays (..., heads) in a tree, or in a dict by paths
        as `layer_0/attention`. Each is for the queries and keys that stand under its path, one
        array alone for all. Its leading axes are the params', as of stacked layers.
      threshold: τ > 0.
      alpha: α in [0, 1], the queries' part; with 1 keys stay as they are.
      query: a regular expression that the paths of the queries' leaves have, in any case; None for
        none.
      key: that of the keys.
      layout: "in_out" or "out_in"; a head is a run of outputs.
      heads_axis: where heads have an axis of their own, which: -2 of (in, heads, size).
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension; max_logits are then those of all heads, the same on each device.

    Raises:
      ValueError: logits that fit no projection, or a projection that they do not fit.

    >>> import jax.numpy as jnp
    >>> params = {name: jnp.ones((1, 4)) for name in ("q_proj", "k_proj", "v_proj")}
    >>> qk_clip(params, jnp.array([400.0, 7.0]))["q_proj"]
    Array([[0.5, 0.5, 1. , 1. ]], dtype=float32)
    """
    factors = head_factors(
        params,
        max_logits,
        threshold,
        alpha,
        query,
        key,
        layout=layout,
        heads_axis=heads_axis,
        axis_name=axis_name,
    )

    def clip(p: Any, factor: Any) -> Any:
        if factor is None:
            return p
        with jax.numpy_dtype_promotion("standard"):
            return (factor * p).astype(p.dtype)

    return jax.tree.map(clip, params, factors)


@gradient_transformation
def clip_attention_logits(
    threshold: Positive = 100.0,
    alpha: Fraction = 0.5,
    query: str | None = QUERY,
    key: str | None = KEY,
    *,
    layout: str = "in_out",
    heads_axis: int | None = None,
    axis_name: Any = None,
) -> Any:
    """u ← fu + (f−1)θ, so that the next θ is f(θ + u), f the factors of `qk_clip`: stands last.

    Its `update` takes `max_logits`; without it u stays as it is.

    Args:
      threshold: τ > 0.
      alpha: α in [0, 1].
      query: see `qk_clip`.
      key: see `qk_clip`.
      layout: see `qk_clip`.
      heads_axis: see `qk_clip`.
      axis_name: see `qk_clip`.

    Memory: none.
    """

    def init(params: Any) -> Any:
        return ()

    def clip(u: jax.Array, p: jax.Array, factor: Any) -> jax.Array:
        return u if factor is None else factor * u + (factor - 1) * p

    def update(updates: Any, state: Any, params: Any, *, max_logits: Any = None) -> Any:
        if max_logits is None:
            return updates, state
        factors = head_factors(
            params,
            max_logits,
            threshold,
            alpha,
            query,
            key,
            layout=layout,
            heads_axis=heads_axis,
            axis_name=axis_name,
        )
        return tree.map(clip, updates, params, factors), state

    return init, update


@composition
def muon_clip(
    learning_rate: LearningRate,
    ns_coeffs: Any = "keller_jordan",
    ns_steps: int = 5,
    beta: Decay = 0.95,
    weight_decay: NonNegative = 0.1,
    weight_decay_mask: Any = None,
    mu_dtype: StoredMean = None,
    *,
    threshold: Positive = 100.0,
    alpha: Fraction = 0.5,
    query: str | None = QUERY,
    key: str | None = KEY,
    heads_axis: int | None = None,
    nesterov: bool = False,
    scale: str = "moonlight",
    layout: str = "in_out",
    ns_dtype: Any = None,
    dimension_numbers: Any = None,
    fallback: GradientTransformation | None = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """MuonClip on hidden matrices, Adam or another optimizer on the other leaves.

    `update(grads, state, params, max_logits=...)` clips. What is not said here is as in `muon`.

    Args:
      learning_rate: η ≥ 0 of the matrices: AdamW's.
      ns_coeffs: of Newton-Schulz.
      ns_steps: of it.
      beta: β in [0, 1).
      weight_decay: λ ≥ 0 of the matrices, multiplied by the learning rate.
      weight_decay_mask: which of the matrices decay.
      mu_dtype: the dtype or codec that m is stored in.
      threshold: τ > 0, the largest logit that a head may have.
      alpha: α in [0, 1], the queries' part; 1 where several heads share a key.
      query: a regular expression of the paths of the queries.
      key: of the keys.
      heads_axis: of queries and keys, where heads have an axis of their own; see `qk_clip`. Muon
        needs `dimension_numbers` for such leaves.
      nesterov: let the momentum look one step ahead.
      scale: "moonlight", "keller_jordan" or "spectral".
      layout: "in_out" or "out_in".
      ns_dtype: of Newton-Schulz's arithmetic; None for float32.
      dimension_numbers: which leaves are matrices, and their axes.
      fallback: the optimizer of the other leaves; None for `adam(3e-4, b2=0.95, eps=1e-10)`.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension; max_logits are then those of all heads, the same on each device.

    >>> import jax.numpy as jnp
    >>> import fnopt
    >>> params = {"attention": {"q_proj": jnp.eye(4), "k_proj": jnp.eye(4)}}
    >>> optimizer, zeros = fnopt.muon_clip(1e-3, weight_decay=0.0), fnopt.tree.zeros_like(params)
    >>> logits = {"attention": jnp.array([400.0, 7.0])}
    >>> u, _ = optimizer.update(zeros, optimizer.init(params), params, max_logits=logits)
    >>> [float(x) for x in jnp.diag(u["attention"]["q_proj"])]
    [-0.5, -0.5, 0.0, 0.0]
    """
    rule = muon(
        learning_rate,
        ns_coeffs,
        ns_steps,
        beta,
        weight_decay,
        weight_decay_mask,
        mu_dtype,
        nesterov=nesterov,
        scale=scale,
        layout=layout,
        ns_dtype=ns_dtype,
        dimension_numbers=dimension_numbers,
        fallback=fallback,
        axis_name=axis_name,
    )
    clip = clip_attention_logits(
        threshold, alpha, query, key, layout=layout, heads_axis=heads_axis, axis_name=axis_name
    )
    return chain(rule, clip)
