"""Pytree arithmetic: the words that every rule is written in.

A rule sees clean trees: float or complex arrays in their compute dtype, nothing else. The words
here are elementwise, and the scalar words are safe where a textbook formula is not: a square does
not overflow, a square root has a finite derivative at zero. Sums and norms over a tree are in
`fnopt.reductions`.
"""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


def flatten(tree: PyTree) -> tuple[list[Any], Any]:
    """Leaves and treedef."""
    return jax.tree.flatten(tree)


def map(f: Callable[..., Any], tree: PyTree, *rest: PyTree, outputs: int | None = None) -> Any:
    """`jax.tree.map`, tracing `f` a few times for all leaves of one shape and dtype.

    While a program is traced, equal leaves are taken in blocks, and a block is one function that
    the program calls; the compiler inlines it. With hundreds of equal layers this is most of the
    tracing time.

    Args:
      f: a function of the corresponding leaves.
      tree: decides the structure.
      *rest: trees with that structure, at least as a prefix.
      outputs: how many leaves `f` returns; the result is then a tuple of as many trees.
    """
    leaves, treedef = flatten(tree)
    columns = list(zip(leaves, *(treedef.flatten_up_to(r) for r in rest)))
    if builtins.any(jnp.iscomplexobj(x) for x in leaves):
        f = _with_real_factors(f)
    if builtins.any(isinstance(x, jax.core.Tracer) for x in leaves):
        results = _map_in_blocks(f, columns)
    else:
        results = [f(*xs) for xs in columns]
    if outputs is None:
        return treedef.unflatten(results)
    return tuple(treedef.unflatten([r[i] for r in results]) for i in range(outputs))


def _with_real_factors(f: Callable[..., Any]) -> Callable[..., Any]:
    """f with a complex leaf free to meet its own real square under strict promotion too."""

    @functools.wraps(f)
    def promoting(*xs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return f(*xs)

    return promoting


def _map_in_blocks(f: Callable[..., Any], columns: list[Any]) -> list[Any]:
    groups: dict[Any, list[int]] = {}
    for i, xs in enumerate(columns):
        groups.setdefault(tuple(jax.typeof(x) for x in jax.tree.leaves(xs)), []).append(i)
    block = jax.jit(lambda rows: [f(*xs) for xs in rows])
    results: list[Any] = [None] * len(columns)
    for members in groups.values():
        size = math.isqrt(len(members))
        whole = len(members) - len(members) % size if size > 1 else 0
        for start in range(0, whole, size):
            chosen = members[start : start + size]
            for i, result in zip(chosen, block([columns[i] for i in chosen])):
                results[i] = result
        for i in members[whole:]:
            results[i] = f(*columns[i])
    return results


def zeros_like(tree: PyTree, dtype: Any = None) -> PyTree:
    """Zeros of the tree's shapes, in its dtypes or in `dtype`; a complex leaf's stay complex."""
    to_complex = dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)

    def zeros(x: Any) -> jax.Array:
        return jnp.zeros_like(x, dtype=dtype if to_complex or not jnp.iscomplexobj(x) else None)

    return jax.tree.map(zeros, tree)


def real_zeros_like(tree: PyTree) -> PyTree:
    """Zeros of the tree's shapes in the real counterpart of its dtypes: for squares."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=jnp.finfo(x.dtype).dtype), tree)


def nones_like(tree: PyTree) -> PyTree:
    """None for each leaf: an argument of `map` for a buffer that a rule does without."""
    leaves, treedef = flatten(tree)
    return treedef.unflatten([None] * len(leaves))


def full_like(tree: PyTree, value: float) -> PyTree:
    """A constant of the tree's shapes in the real counterpart of its dtypes."""
    return jax.tree.map(lambda x: jnp.full_like(x, value, dtype=jnp.finfo(x.dtype).dtype), tree)


def scale(factor: Any, tree: PyTree) -> PyTree:
    """factor · tree, for a scalar."""
    factor = weak(factor)
    return map(lambda x: factor * x, tree)


def add(a: PyTree, b: PyTree) -> PyTree:
    """a + b."""
    return map(lambda x, y: x + y, a, b)


def lerp(old: PyTree, new: PyTree, decay: Any) -> PyTree:
    """decay · old + (1 − decay) · new: one step of an exponential moving average."""
    return map(lambda o, n: decay * o + (1 - decay) * n, old, new)


def lerp_squared(old: PyTree, new: PyTree, decay: Any) -> PyTree:
    """decay · old + (1 − decay) · |new|²: one step of a second moment."""
    return map(lambda o, n: decay * o + (1 - decay) * squared(n), old, new)


# Scalars and single leaves


def weak(x: Any) -> Any:
    """The scalar `x`, weakly typed: it takes the dtype of the leaf that it meets.

    A hyperparameter or a bias correction must not decide the dtype of the leaves it scales, nor
    be rounded to it beforehand. Python numbers are weak by themselves.
    """
    if isinstance(x, int | float | complex):
        return x
    return jax.lax.full_like(0.0, x)  # as weak as the Python number that it is to be like


def is_static_zero(x: Any) -> bool:
    """Whether `x` is a zero known when the rule is built, so that its buffer can be dropped."""
    return isinstance(x, int | float) and x == 0


def saturate(x: jax.Array) -> jax.Array:
    """x with finite entries limited in magnitude to 2e16 in float32: what `squared` can square.

    One huge gradient entry then makes no step out of proportion to its second moment. Infinite
    and NaN entries stay as they are, visible.
    """
    if jnp.iscomplexobj(x):
        return jnp.where(jnp.isinf(x), x, limit(x))
    return jax.lax.select(jax.lax.is_finite(x), limit(x), x)  # few words: they compile per leaf


def squared(x: jax.Array) -> jax.Array:
    """|x|², real, saturating at 2⁻²⁰ of the largest number (3e32 in float32).

    So that it, and a million of it added up, stay finite for a finite x.
    """
    x = limit(x)
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x * x


def limit(x: jax.Array) -> jax.Array:
    """x limited in magnitude to what `squared` can square, infinite entries too."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(limit(jnp.real(x)), limit(jnp.imag(x)))
    most = float(jnp.finfo(x.dtype).max) ** 0.5 * 2.0**-10
    if jax.typeof(x).weak_type:  # a scalar, which must stay weak
        return jnp.clip(x, -most, most)
    bound = np.asarray(most, x.dtype)
    return jax.lax.clamp(-bound, x, bound)


def sqrt(x: jax.Array) -> jax.Array:
    """√x for x ≥ 0, floored at the root of the smallest normal number (1e-19 in float32).

    So that its derivative at zero is zero instead of infinite, and 0/√0 is 0.
    """
    return jnp.sqrt(jnp.maximum(x, float(jnp.finfo(x.dtype).tiny)))


def increment(count: jax.Array) -> jax.Array:
    """count + 1, staying at the largest integer instead of turning negative."""
    return jnp.minimum(count, jnp.iinfo(count.dtype).max - 1) + 1


def zero_count() -> jax.Array:
    """The count of a fresh state: int32, ()."""
    return jnp.zeros((), jnp.int32)


def bias_correction(decay: Any, count: jax.Array) -> Any:
    """1 − decayᵗ for t = count ≥ 1, to full relative precision also where decay is near 1."""
    return 1.0 if is_static_zero(decay) else -_power_minus_one(decay, count)


def debias(decay: Any, count: jax.Array) -> Any:
    """1 / (1 − decayᵗ), for t = count ≥ 1.

    The sign turns last: so cheap a word the CPU compiler puts into each loop, and then loops over
    leaves of one shape take their arguments in one order and are compiled once.
    """
    return 1.0 if is_static_zero(decay) else -(1 / _power_minus_one(decay, count))


def _power_minus_one(decay: Any, count: jax.Array) -> Any:
    log = math.log(decay) if isinstance(decay, float) else jnp.log(jnp.maximum(decay, 1e-37))
    return jnp.expm1(weak(count.astype(jnp.result_type(float))) * log)


# The places of a tree


def key_name(key: Any) -> str:
    """A path's key as a word: the field, dict key or index."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def path_name(path: Sequence[Any]) -> str:
    """A path as `a/b/0`: the names of checkpoints and reports."""
    return "/".join(key_name(k) for k in path)


def nodes(tree: PyTree, found: Callable[[Any], bool]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The outermost subtrees for which `found` is true, with their paths."""
    pairs = jax.tree_util.tree_flatten_with_path(tree, is_leaf=found)[0]
    return ((path, node) for path, node in pairs if found(node))


def replace_nodes(tree: PyTree, found: Callable[[Any], bool], f: Callable[[Any], Any]) -> PyTree:
    """The tree with f(node) in place of each outermost subtree for which `found` is true."""
    return jax.tree.map(lambda x: f(x) if found(x) else x, tree, is_leaf=found)


def is_none(x: Any) -> bool:
    """For `is_leaf`: None as a leaf with a place of its own."""
    return x is None


def align(state: PyTree, params: PyTree) -> list[tuple[tuple[Any, ...], Any, tuple[Any, ...], Any]]:
    """Which state leaf belongs to which parameter, by the state law.

    Returns for each leaf of the state (path, leaf, parameter's path, parameter); the last two
    are () and None for a leaf that belongs to none. A field with the params' tree as a prefix
    belongs to the params, leaf by leaf; in it, a leaf with the parameter's number of dimensions,
    none longer than the parameter's, is like the parameter.
    """
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    wanted: Any = jax.tree.structure(jax.tree.map(lambda _: 0, params))

    def walk(path: tuple[Any, ...], node: PyTree) -> Iterator[Any]:
        try:
            below = wanted.flatten_up_to(node) if wanted.num_leaves else None
        except ValueError:
            below = None
        if below is not None:
            for (param_path, param), subtree in zip(paths, below):
                for rest, leaf in jax.tree_util.tree_flatten_with_path(subtree)[0]:
                    place = (*path, *param_path, *rest)
                    yield (
                        (place, leaf, param_path, param)
                        if is_like(leaf, param)
                        else (place, leaf, (), None)
                    )
            return
        children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
        for key, child in children:
            if key == () or child is node:
                yield (*path, *key), child, (), None
            else:
                yield from walk((*path, *key), child)

    return list(walk((), state))


def field_of(path: Sequence[Any], param_path: Sequence[Any]) -> str:
    """The field that a state's leaf stands in: the last word before the parameter's own path."""
    for start in range(len(path) - len(param_path), 0, -1):
        if tuple(path[start : start + len(param_path)]) == tuple(param_path):
            return key_name(path[start - 1])
    return path_name(path)


def field_names(state: PyTree) -> set[str]:
    """The names of all fields of the tuples in a state, of those that are None too."""
    names: set[str] = set()

    def visit(node: Any) -> bool:
        names.update(getattr(node, "_fields", ()))
        return False

    jax.tree.leaves(state, is_leaf=visit)
    return names


def is_like(leaf: Any, param: Any) -> bool:
    """Whether a state leaf has the form that the state law gives a parameter's leaf."""
    a, b = np.shape(leaf), np.shape(param)
    return len(a) == len(b) and all(m in (1, n) or 0 < m < n for m, n in zip(a, b))
