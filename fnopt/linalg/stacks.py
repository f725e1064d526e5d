"""Equal shapes as one: a kernel over all matrices of a tree that have the same sides.

Leaves whose matrices have the same rows and columns, a transposed leaf too, are put into one
stack. A kernel is then traced and compiled once for each shape and not once for each leaf. On a
CPU, where a batch of products is no faster than one after another, the stack is walked through;
elsewhere it is one batch, in parts of `LARGEST` entries at most.
"""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from fnopt import splits, tree
from fnopt.tree import PyTree

LARGEST = 2**26
"""The entries of a part of a stack that a kernel gets at once, where it gets a batch."""

MANY = 4
"""How many leaves of one shape there are before the compiler is to see one loop for all."""

Kernel = Callable[[tuple[jax.Array, ...], tuple[Any, ...]], tuple[Sequence[Any], Sequence[Any]]]


def map_stacks(
    kernel: Kernel,
    views: PyTree,
    matrices: Sequence[PyTree],
    kept: Sequence[PyTree] = (),
) -> tuple[tuple[PyTree, ...], tuple[PyTree, ...]]:
    """A kernel over the matrices of trees, in stacks of those with equal sides.

    Args:
      kernel: (matrices, kept) -> (matrices, kept). It is given tuples of (k, rows, columns) and of
        trees of arrays with k in front, for any k, and returns as many as it likes of each.
      views: a `fnopt.matrices.View` for each leaf; one that has None stays as it is, the first of
        the results is then the first that was given.
      matrices: trees of leaves in the params' shapes.
      kept: trees that have at each leaf an array or a tree of arrays (batch, ...).

    Returns:
      The trees that the kernel's results make: in the params' shapes, and as `kept`.
    """
    seen, found = jax.tree.flatten(views, is_leaf=tree.is_none)
    treedef: Any = found
    columns = [treedef.flatten_up_to(t) for t in matrices]
    extras = [treedef.flatten_up_to(t) for t in kept]
    groups: dict[Any, list[int]] = collections.defaultdict(list)
    for i, view in enumerate(seen):
        if view is not None:
            groups[view.rows, view.columns, jnp.result_type(*(c[i] for c in columns))].append(i)
    out: dict[int, Any] = {}
    for members in groups.values():
        rows = [
            (tuple(seen[i].stack(c[i]) for c in columns), tuple(e[i] for e in extras))
            for i in members
        ]
        through: Any = functools.partial(_through, kernel)
        if not isinstance(rows[0][0][0], jax.core.Tracer):
            through = jax.jit(through)  # one program, where else each operation is one
        for i, (moved, held) in zip(members, through(rows)):
            out[i] = [seen[i].unstack(x, columns[0][i]) for x in moved], held
    counts = [len(side) for side in next(iter(out.values()), (matrices, kept))]
    results: list[tuple[PyTree, ...]] = []
    for side, given in enumerate((columns, extras)):
        given = [*given, *[[None] * len(seen)] * (counts[side] - len(given))]
        trees = [
            [out[i][side][j] if i in out else given[j][i] for i in range(len(seen))]
            for j in range(counts[side])
        ]
        results.append(tuple(map(treedef.unflatten, trees)))
    return results[0], results[1]


def _part(start: Any, size: int, x: jax.Array) -> jax.Array:
    if x.shape[0] == size:
        return x
    return jax.lax.dynamic_slice_in_dim(x, start, size, allow_negative_indices=False)


def _starts(sizes: Sequence[int], stack: jax.Array) -> Sequence[Any]:
    """Where each leaf's part of a stack begins.

    A CPU compiles a loop for each constant in it, but equal loops once. So there, if the parts are
    many, they are numbers that come out of a program: a loop that ends after one turn, which the
    compiler cannot know. Half of the compiler's time for Muon of 72 matrices was spent on them.
    """
    starts = tuple(itertools.accumulate(sizes[:-1], initial=0))
    if len(sizes) < MANY or not isinstance(stack, jax.core.Tracer):
        return starts

    def told(first: jax.Array) -> tuple[jax.Array, ...]:
        constants = tuple(map(jnp.int32, starts))
        never = jnp.isnan(first) & jnp.isinf(first)
        return jax.lax.cond(never, lambda: (jnp.int32(0),) * len(starts), lambda: constants)

    first = jax.lax.stop_gradient(jnp.real(stack[(0,) * stack.ndim]))
    return jax.lax.platform_dependent(
        first, cpu=told, default=lambda _: tuple(map(jnp.int32, starts))
    )


Row = tuple[tuple[jax.Array, ...], tuple[Any, ...]]


def _through(kernel: Kernel, rows: Sequence[Row]) -> list[Row]:
    """The rows (matrices, kept) of leaves of one shape through a kernel."""
    stacks, held = jax.tree.map(lambda *parts: _joined(parts), *rows)
    axis = splits.shared_over(stacks[0])
    if axis is None or len(stacks[0]) == 1:
        found = _run(kernel, stacks, held)
    else:
        found = _shared_out(kernel, stacks, held, axis)
    sizes = [row[0][0].shape[0] for row in rows]
    starts = _starts(sizes, stacks[0])
    return [
        jax.tree.map(functools.partial(_part, start, size), found)
        for start, size in zip(starts, sizes)
    ]


def _shared_out(
    kernel: Kernel, stacks: tuple[jax.Array, ...], held: tuple[Any, ...], axis: str
) -> Any:
    """Each device of a mesh axis runs its part of the stacks; the results are on all of them.

    A stack is filled up with its last matrix until the axis divides it.
    """
    mesh: Any = jax.typeof(stacks[0]).sharding.mesh
    k = len(stacks[0])
    size = -(-k // mesh.shape[axis]) * mesh.shape[axis]
    part, whole = NamedSharding(mesh, jax.P(axis)), NamedSharding(mesh, jax.P())

    def filled(x: jax.Array) -> jax.Array:
        last = jax.lax.slice_in_dim(x, k - 1, k)
        return splits.put(jnp.concatenate([x, *[last] * (size - k)]), part)

    run = jax.shard_map(
        functools.partial(_run, kernel),
        mesh=mesh,
        in_specs=jax.P(axis),
        out_specs=jax.P(axis),
        axis_names={axis},
        check_vma=False,
    )
    found = run(*jax.tree.map(filled, (stacks, held)))
    return jax.tree.map(lambda x: splits.put(x, whole)[:k], found)


def _joined(parts: Sequence[jax.Array]) -> jax.Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _run(kernel: Kernel, stacks: tuple[jax.Array, ...], held: tuple[Any, ...]) -> Any:
    """One after another on a CPU, in large parts elsewhere."""
    k, rows, columns = stacks[0].shape

    def at_once(size: int) -> Any:
        def run(stacks: Any, held: Any) -> Any:
            if k <= size:
                return _as_tuples(kernel(stacks, held))

            def one(arguments: Any) -> Any:
                arguments = jax.tree.map(lambda x: x[None], arguments)
                return jax.tree.map(lambda x: x[0], _as_tuples(kernel(*arguments)))

            return jax.lax.map(one, (stacks, held), batch_size=size if size > 1 else None)

        return run

    largest = max(1, LARGEST // (rows * columns))
    if k == 1 or largest == 1:
        return at_once(1)(stacks, held)
    return jax.lax.platform_dependent(stacks, held, cpu=at_once(1), default=at_once(largest))


def _as_tuples(results: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple(results[0]), tuple(results[1])
