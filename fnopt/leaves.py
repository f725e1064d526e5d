"""Clean trees: what a rule sees of the user's pytrees, and how its answer is put back.

Float and complex leaves are cast to their compute dtype; `None`, integers, booleans, float0
gradients, PRNG keys and everything that is not an array are split off (they become `None` in the
tree that the rule sees) and pass through untouched. Mistakes are named by their leaf's path.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import mesh_axes, tree
from fnopt.tree import PyTree


def is_inexact(x: Any) -> bool:
    """Whether a leaf is a float or complex array (or Python number), so that a rule sees it."""
    if isinstance(x, float | complex):
        return True
    return isinstance(x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct) and bool(
        jnp.issubdtype(x.dtype, jnp.inexact)
    )


def compute_dtype(dtype: Any) -> Any:
    """float32 for 8, 16 and 32 bit floats, float64 for float64, the complex counterparts."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jnp.dtype(jnp.complex128 if jnp.dtype(dtype).itemsize == 16 else jnp.complex64)
    return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)


def is_narrow(dtype: Any) -> bool:
    """Whether it is a float dtype of 16 bits or fewer, which is computed with in float32."""
    return bool(jnp.issubdtype(dtype, jnp.floating)) and jnp.dtype(dtype).itemsize < 4


def dtype_of(x: Any) -> Any:
    """A leaf's dtype; JAX's default for a Python number."""
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(type(x))


NOTHING: Mapping[int, Any] = types.MappingProxyType({})
_stored = contextvars.ContextVar("_stored", default=NOTHING)


@contextlib.contextmanager
def storing(cleaned: PyTree, dtypes: Iterable[Any]) -> Iterator[None]:
    """While it is open, `stored_dtype` of a leaf of a clean tree is what is said here.

    Args:
      cleaned: the tree that a rule is given.
      dtypes: one for each of its leaves, those that are None too; None for what is not known, and
        an error to be raised for what cannot be told.
    """
    pairs = zip(flatten(cleaned)[0], dtypes)
    own = {id(x): d for x, d in pairs if x is not None and d is not None and d is not _known(x)}
    token = _stored.set({**_stored.get(), **own})
    try:
        yield
    finally:
        _stored.reset(token)


def stored_dtype(leaf: Any) -> Any:
    """The dtype that a leaf of clean params is kept in between steps: bfloat16 for a float32 one.

    A rule's `init` is given params in their compute dtype; here it learns what the user's are. A
    leaf that a wrapper made anew has its own dtype.

    Raises:
      ValueError: where a wrapper joined leaves of several dtypes into this one.
    """
    found = _known(leaf)
    if isinstance(found, Exception):
        raise found
    return found


def _known(leaf: Any) -> Any:
    return _stored.get().get(id(leaf), dtype_of(leaf))


def stored_dtypes(t: PyTree) -> list[Any]:
    """What `storing` is told of the user's tree; None for what a rule does not see."""
    return [_known(x) if is_inexact(x) else None for x in flatten(t)[0]]


def nbytes(x: Any) -> int:
    """The bytes that an array, or an abstract one, takes on a device: two 4-bit entries in one."""
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        bits = 8 * x.dtype.itemsize
    elif jnp.issubdtype(x.dtype, jnp.integer):
        bits = jnp.iinfo(x.dtype).bits
    elif jnp.issubdtype(x.dtype, jnp.floating):
        bits = jnp.finfo(x.dtype).bits
    else:
        bits = 8 * jnp.dtype(x.dtype).itemsize
    return -(-math.prod(x.shape) * bits // 8)


def cast(x: Any, dtype: Any) -> Any:
    """x in `dtype`, strongly typed; x itself where it is so already."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)
    if (
        isinstance(x, jax.Array)
        and x.dtype == dtype
        and not getattr(jax.typeof(x), "weak_type", False)
    ):
        return x
    return jax.lax.convert_element_type(jnp.asarray(x), dtype)


def describe(x: Any) -> str:
    """A leaf in an error: `float32[4,3]`, or the object."""
    if x is None or not hasattr(x, "shape"):
        return repr(x)
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def flatten(t: PyTree) -> tuple[list[Any], Any]:
    """Leaves and treedef, with None as a leaf: it has a place of its own."""
    return jax.tree.flatten(t, is_leaf=tree.is_none)


def paths(t: PyTree) -> list[str]:
    """The leaves' paths as they are written in Python: `['w'][0]`."""
    pairs = jax.tree_util.tree_flatten_with_path(t, is_leaf=tree.is_none)[0]
    return [jax.tree_util.keystr(path) for path, _ in pairs]


def require_same_structure(owner: str, names: Sequence[str], first: PyTree, second: PyTree) -> None:
    """Raises ValueError, naming the first place where two trees differ in structure."""
    a: Any = jax.tree.structure(first, is_leaf=tree.is_none)
    b: Any = jax.tree.structure(second, is_leaf=tree.is_none)
    if a == b:
        return
    here, there = paths(first), paths(second)
    only_first = [p for p in here if p not in set(there)]
    only_second = [p for p in there if p not in set(here)]
    if only_first or only_second:
        parts = [
            f"only {name} have {', '.join(name + p for p in extra[:3])}"
            + (f" and {len(extra) - 3} more" if len(extra) > 3 else "")
            for name, extra in zip(names, (only_first, only_second))
            if extra
        ]
        what = "; ".join(parts)
    else:
        what = f"{names[0]} are {a}, {names[1]} are {b}"
    raise ValueError(
        f"{owner}: {names[0]} and {names[1]} must have the same structure: {what}. "
        "The order is update(updates, state, params) and apply_updates(params, updates)"
    )


def require_same_shapes(
    owner: str,
    updates: PyTree,
    params: PyTree,
    none_allowed: bool = False,
    per_example: bool = False,
) -> None:
    """Raises ValueError where an update's shape or kind is not its parameter's.

    Args:
      owner: whose error it is.
      updates: the updates.
      params: the params.
      none_allowed: whether a float parameter may have None for its update.
      per_example: whether updates have one batch axis in front of the params' shapes.
    """
    for path, u, p in zip(paths(params), flatten(updates)[0], flatten(params)[0]):
        if not is_inexact(p) or (u is None and none_allowed):
            continue
        if not is_inexact(u):
            raise ValueError(
                f"{owner}: updates{path} is {describe(u)}, but params{path} is {describe(p)}: "
                "a float parameter needs a float update (to keep it fixed, mask it)"
            )
        shape = np.shape(u)
        one = "" if not per_example else f", of which one example's is {shape[1:]}"
        if (shape[1:] != np.shape(p) or not shape) if per_example else shape != np.shape(p):
            raise ValueError(
                f"{owner}: updates{path} has shape {shape}{one}, but params{path} has shape "
                f"{np.shape(p)}"
            )
        if jnp.issubdtype(dtype_of(u), jnp.complexfloating) and not jnp.issubdtype(
            dtype_of(p), jnp.complexfloating
        ):
            raise ValueError(
                f"{owner}: updates{path} is {describe(u)}, but params{path} is {describe(p)}, "
                "which is real"
            )


def clean(t: PyTree, like: PyTree) -> PyTree:
    """The tree that a rule sees: leaves that are inexact in `like`, in its compute dtypes."""
    leaves, treedef = flatten(t)
    return treedef.unflatten(
        cast(x, compute_dtype(dtype_of(p))) if is_inexact(p) else None
        for x, p in zip(leaves, flatten(like)[0])
    )


def of_one_example(cleaned: PyTree) -> PyTree:
    """The shapes and dtypes of a clean tree without its batch axis."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), cleaned)


def merge(owner: str, new: PyTree, old: PyTree, cleaned: PyTree) -> PyTree:
    """The rule's updates in the places of the clean leaves, the old leaves in the others.

    Args:
      owner: whose error it is.
      new: the rule's updates.
      old: the user's updates.
      cleaned: what the rule was given, or abstract arrays of the shapes that it must give.

    Raises ValueError where the rule gave another shape than it was given, which is what happens
    when a state belongs to other params.
    """
    seen, wanted = flatten(cleaned)
    given, got = flatten(new)
    if got != wanted:
        require_same_structure(owner, ("new updates", "updates"), new, cleaned)
    leaves = []
    for i, (n, c, o) in enumerate(zip(given, seen, flatten(old)[0])):
        if c is not None and n.shape != c.shape:
            raise ValueError(
                f"{owner}: the update of updates{paths(cleaned)[i]} came out as {describe(n)}, "
                f"but must be {describe(c)}: does the state belong to these params?"
            )
        leaves.append(o if c is None else cast(n, c.dtype))
    return wanted.unflatten(leaves)


def conform(owner: str, new: PyTree, old: PyTree) -> PyTree:
    """The new state in the old one's dtypes; an error where its structure or a shape changed.

    Inside `shard_map` it varies over the mesh axes that the old one does.
    """
    leaves, treedef = tree.flatten(new)
    before, wanted = tree.flatten(old)
    if treedef != wanted:
        require_same_structure(owner, ("new state", "state"), new, old)
        raise ValueError(f"{owner}: the state changed from {wanted} to {treedef}")
    inside = bool(jax.sharding.get_abstract_mesh().manual_axes)
    result = []
    for i, (n, o) in enumerate(zip(leaves, before)):
        if hasattr(o, "dtype"):
            if np.shape(n) != np.shape(o):
                path = jax.tree_util.tree_flatten_with_path(old)[0][i][0]
                raise ValueError(
                    f"{owner}: state{jax.tree_util.keystr(path)} has shape {np.shape(o)}, but its "
                    f"update has shape {np.shape(n)}: does the state belong to these params?"
                )
            n = cast(n, o.dtype)
            if inside:
                n = mesh_axes.vary(n, mesh_axes.varying(o))
        result.append(n)
    return treedef.unflatten(result)
