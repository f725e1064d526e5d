"""What the laws look at: a builder of an optimizer, and the trees that they try it on."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import leaves, tree
from fnopt.apply import apply_updates
from fnopt.testing.laws.builder import Builder

SHAPES = {"layer": {"kernel": (4, 3), "bias": (3,)}, "cube": (2, 3, 2), "gain": ()}
"""The tree that most checks use: every rank, one leaf of each shape."""
FEW = {"kernel": (4, 3), "gain": ()}
"""A smaller tree, for the checks that trace or compile large programs."""

op_by_op = jax.disable_jit
"""While it is open, functions that are jitted inside a rule, and loops, run as plain Python."""
LONG = 400
"""A step of more operations is compiled where a shorter one is computed op by op."""


class Subject:
    """One optimizer under examination.

    Values are computed op by op where a law is not about compilation: every operation of every
    optimizer on the same shapes is then compiled once, by the first that needs it. What must be
    seen compiled is `advance`, one program for each dtype, which all laws share.

    Attributes:
      builder: what built it.
      optimizer: a transformation, or a pair of functions.
      init: its `init`.
      traced: (updates, state, params) -> (updates as `look` has them, state, params after them),
        with the number of times that JAX has traced it.
      advance: the same compiled, once for all checks of this subject that need the same program;
        inside another traced function its trace is used again.
    """

    def __init__(self, build: Callable[..., Any], **overrides: Any):
        self.builder = build if isinstance(build, Builder) else Builder(build)
        self.optimizer = self.builder(**overrides)
        self.init, self.plain_update = self.optimizer
        self.traced = Counted(self._advance)
        self.advance = jax.jit(self.traced)

    def __repr__(self) -> str:
        return repr(self.builder)

    def update(self, updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """`update` with the extra arguments that the optimizer needs."""
        extras = self.builder.extras(updates, params)
        return self.plain_update(self.builder.feed(updates), state, params, **extras)

    def step(self, params: Any, state: Any, updates: Any) -> tuple[Any, Any]:
        """(params, state) after one update."""
        updates, state = self.update(updates, state, params)
        return self.apply(params, updates), state

    def apply(self, params: Any, updates: Any) -> Any:
        """The params after the updates."""
        if self.builder.step_size != 1.0:
            size = self.builder.step_size
            updates = jax.tree.map(lambda u: size * u if leaves.is_inexact(u) else u, updates)
        return apply_updates(params, updates)

    def look(self, updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """`update`, but for narrow params what they move by in the state, if it knows better."""
        updates, after = self.update(updates, state, params)
        return self._seen(updates, state, params, after), after

    def _seen(self, updates: Any, state: Any, params: Any, after: Any) -> Any:
        exact = self.builder.exact
        if exact is None:
            return updates

        def moved(p: Any, u: Any, old: Any, new: Any) -> Any:
            return new - old if leaves.is_inexact(p) and leaves.is_narrow(p.dtype) else u

        ends = exact(state, params), exact(after, self.apply(params, updates))
        return jax.tree.map(moved, params, updates, *ends)

    def run(
        self, params: Any, gradients: Any, jitted: bool = False
    ) -> Iterator[tuple[Any, Any, Any]]:
        """(updates as `look` has them, state, params) after each step, op by op or compiled."""
        with contextlib.nullcontext() if jitted else op_by_op():
            state = self.init(params)
        for gradient in gradients:
            if jitted:
                seen, state, params = self.advance(gradient, state, params)
            else:
                with op_by_op():
                    seen, state, params = self._advance(gradient, state, params)
            yield seen, state, params

    def once(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """A function of steps that is called once: compiled if a step is long, else op by op."""
        if self._is_long:
            return jax.jit(f)

        def called(*args: Any) -> Any:
            with op_by_op():
                return f(*args)

        return called

    @functools.cached_property
    def _is_long(self) -> bool:
        params = params_of()
        jaxpr = jax.make_jaxpr(self.step)(params, jax.eval_shape(self.init, params), params)
        return sum(1 for _ in operations(jaxpr.jaxpr)) > LONG

    def _advance(self, gradient: Any, state: Any, params: Any) -> tuple[Any, Any, Any]:
        updates, after = self.update(gradient, state, params)
        seen = self._seen(updates, state, params, after)
        return seen, after, self.apply(params, updates)


def operations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a jaxpr and of those inside it: branches, loops, functions."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


# Trees


def values_of(dtype: Any, seed: int, shapes: Any = SHAPES, factor: float = 1.0) -> Any:
    """Normal numbers of these shapes in a dtype, the same each time."""
    rng = np.random.default_rng(seed)

    def leaf(shape: tuple[int, ...]) -> jax.Array:
        value = rng.normal(size=shape) * factor
        if jnp.issubdtype(dtype, jnp.complexfloating):
            value = value + 1j * rng.normal(size=shape) * factor
        return jnp.asarray(np.asarray(value, dtype))

    return jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))


def params_of(dtype: Any = jnp.float32, shapes: Any = SHAPES) -> Any:
    """The parameters that the checks use."""
    return values_of(dtype, 0, shapes)


def gradients_of(
    dtype: Any = jnp.float32, step: int = 0, shapes: Any = SHAPES, factor: float = 1.0
) -> Any:
    """The gradients that the checks use at a step."""
    return values_of(dtype, 1 + step, shapes, factor)


def full_of(dtype: Any, value: complex, shapes: Any = SHAPES) -> Any:
    """A constant of these shapes."""
    return jax.tree.map(
        lambda s: jnp.asarray(np.full(s, value, dtype)),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def named(t: Any) -> dict[str, Any]:
    """The leaves by their path as it is written in Python."""
    pairs = jax.tree_util.tree_flatten_with_path(t)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in pairs}


def inexact(t: Any) -> dict[str, np.ndarray]:
    """The float and complex leaves by path, as NumPy arrays of double precision."""
    return {
        path: np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64)
        for path, x in named(t).items()
        if leaves.is_inexact(x)
    }


# Comparisons: each yields what differs, in words


def differences(got: Any, wanted: Any, tolerance: float = 1e-5) -> Iterator[str]:
    """Leaves further apart than a fraction of the wanted leaf's largest entry."""
    one, two = inexact(got), inexact(wanted)
    if list(one) != list(two):
        yield f"leaves {list(one)}, expected {list(two)}"
        return
    for path, a in one.items():
        b = two[path]
        if a.shape != b.shape:
            yield f"{path} has shape {a.shape}, expected {b.shape}"
            continue
        size = np.max(np.abs(b), initial=0.0, where=np.isfinite(b)) + 1e-30
        off = ~np.isclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True)
        if off.any():
            yield f"{path} is {a[off].flat[0]:.7g}, expected {b[off].flat[0]:.7g}"


def not_finite(t: Any, start: Any = None) -> Iterator[str]:
    """Leaves with an infinite or NaN entry that was not there at the start."""
    before = {} if start is None else inexact(start)
    for path, x in inexact(t).items():
        bad = ~np.isfinite(x)
        if path in before and before[path].shape == x.shape:
            bad &= np.isfinite(before[path])
        if bad.any():
            yield f"{path} is {x[bad].flat[0]}"


def dead(t: Any, reference: Any) -> Iterator[str]:
    """Leaves that are zero although they are not in the reference."""
    wanted = inexact(reference)
    for path, x in inexact(t).items():
        if wanted[path].any() and not x.any():
            yield f"{path} is zero"


def same_structure(one: Any, two: Any) -> bool:
    """Whether two trees have one structure."""
    first, second = jax.tree.structure(one), jax.tree.structure(two)
    return first is not None and bool(first == second)


def describe(x: Any) -> str:
    """An array's type: `weakly typed float32[3]`."""
    weak = x.weak_type if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x).weak_type
    shaped = x if hasattr(x, "dtype") else np.asarray(x)
    return ("weakly typed " if weak else "") + leaves.describe(shaped)


def changes(before: Any, after: Any, placement: bool = True) -> Iterator[str]:
    """Leaves whose shape, dtype, weak type or (of real arrays) placement changed."""
    if not same_structure(before, after):
        yield f"the structure {jax.tree.structure(before)} became {jax.tree.structure(after)}"
        return
    for path, a in named(before).items():
        b = named(after)[path]
        if describe(a) != describe(b):
            yield f"{path} was {describe(a)} and became {describe(b)}"
        elif placement and isinstance(a, jax.Array) and isinstance(b, jax.Array):
            if not a.sharding.is_equivalent_to(b.sharding, a.ndim):
                yield f"{path} was on {a.sharding} and moved to {b.sharding}"
            elif a.committed != b.committed:
                yield f"{path} was {'' if a.committed else 'not '}committed to its device"


def param_like(state: Any, params: Any) -> list[tuple[str, Any, Any]]:
    """(path, leaf, parameter) of the state's leaves that belong to a parameter."""
    return [
        (jax.tree_util.keystr(path), leaf, param)
        for path, leaf, _, param in tree.align(state, params)
        if param is not None and hasattr(leaf, "shape")
    ]


class Counted:
    """A function that counts how often it is traced."""

    def __init__(self, f: Callable[..., Any]):
        self.f, self.traces = f, 0

    def __call__(self, *args: Any) -> Any:
        """Calls it."""
        self.traces += 1
        return self.f(*args)
