"""What the laws look at: a builder of an optimizer, and the trees that they try it on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import leaves, tree
from fnopt.core import apply_updates
from fnopt.hyperparameters import Kind

SHAPES = {"layer": {"kernel": (4, 3), "bias": (3,)}, "cube": (2, 3, 2), "gain": ()}
"""The tree that most checks use: every rank, one leaf of each shape."""
FEW = {"kernel": (4, 3), "gain": ()}
"""A smaller tree, for the checks that compile large programs."""


class Builder:
    """A call to be made: `Builder(adam, 1e-2)()` is `adam(1e-2)`, and equal each time.

    The laws about hyperparameters override its arguments: `builder(b1=Tunable(0.9))`. A factory
    of fnopt's brings the kinds of its hyperparameters; others may have an attribute `kinds` too.

    Attributes:
      kinds: hyperparameter -> its kind.
      arguments: parameter -> argument, defaults included.
      extras: (updates, params) -> the extra arguments of `update`.
      feed: gradients -> what `update` is given in their place.
      step_size: the factor of the updates when they are applied: below 1 for a part whose updates
        are as large as the params.
      temp_fraction: the temporary memory that L18 allows, as a fraction of the params' bytes;
        None for a rule that makes no such promise.
      draws: whether it draws at random, for each leaf by its place in the tree.
    """

    def __init__(self, factory: Callable[..., Any], /, *args: Any, **kwargs: Any):
        self.factory = factory
        self.signature = inspect.signature(factory)
        self.bound = self.signature.bind(*args, **kwargs)
        self.given = dict(self.bound.arguments)
        self.bound.apply_defaults()
        self.arguments: Mapping[str, Any] = self.bound.arguments
        self.kinds: Mapping[str, Kind] = getattr(factory, "kinds", {})
        self.extras: Callable[[Any, Any], Mapping[str, Any]] = lambda updates, params: {}
        self.feed: Callable[[Any], Any] = lambda updates: updates
        self.step_size = 1.0
        self.temp_fraction: float | None = 0.25
        self.draws = False

    def __call__(self, **overrides: Any) -> Any:
        """Calls the factory, with some arguments replaced."""
        call = self.signature.bind(*self.bound.args, **self.bound.kwargs)
        call.apply_defaults()
        unknown = [name for name in overrides if not self.accepts(name)]
        if unknown:
            raise TypeError(f"{self!r} does not accept {', '.join(unknown)}")
        call.arguments.update(overrides)
        return self.factory(*call.args, **call.kwargs)

    def __repr__(self) -> str:
        words = [
            name if value is None else f"{name}={_show(value)}"
            for name, value in self.given.items()
        ]
        return f"{self.name}({', '.join(words)})"

    @property
    def name(self) -> str:
        """The factory's name."""
        return str(getattr(self.factory, "__name__", self.factory))

    def accepts(self, name: str) -> bool:
        """Whether an argument can be overridden."""
        return name in self.signature.parameters

    def numbers(self, initial: bool = False) -> dict[str, float]:
        """The hyperparameters that are given as numbers and read at every update.

        Args:
          initial: include those that are read in `init` alone, and so cannot change.
        """
        chosen = [name for name, kind in self.kinds.items() if initial or not kind.initial]
        values = {name: self.arguments.get(name) for name in chosen}
        return {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    def calling(
        self, f: Callable[[Any, Any], Mapping[str, Any]] | None = None, /, **extra_args: Any
    ) -> Builder:
        """This builder, whose `update` is called with extra arguments.

        Args:
          f: (updates, params) -> extra arguments, where they depend on these.
          **extra_args: the extra arguments, where they do not.
        """
        other = self._copy()
        other.extras = f or (lambda updates, params: extra_args)
        return other

    def feeding(self, f: Callable[[Any], Any]) -> Builder:
        """This builder, whose `update` is given f(gradients): those of single examples, say."""
        other = self._copy()
        other.feed = f
        return other

    def stepping(self, step_size: float) -> Builder:
        """This builder, whose updates are applied times a factor."""
        other = self._copy()
        other.step_size = step_size
        return other

    def allowing(self, temp_fraction: float | None) -> Builder:
        """This builder with another bound for L18; None for a rule that promises none."""
        other = self._copy()
        other.temp_fraction = temp_fraction
        return other

    def drawing(self) -> Builder:
        """This builder, whose draws at random L16 expects to depend on the leaves' order."""
        other = self._copy()
        other.draws = True
        return other

    def _copy(self) -> Builder:
        other = Builder(self.factory, *self.bound.args, **self.bound.kwargs)
        for name in ("given", "extras", "feed", "step_size", "temp_fraction", "draws"):
            setattr(other, name, getattr(self, name))
        return other


def _show(value: Any) -> str:
    return value.__name__ if inspect.isfunction(value) else repr(value)


class Subject:
    """One optimizer under examination.

    Attributes:
      builder: what built it.
      optimizer: a transformation, or a pair of functions.
      init: its `init`.
    """

    def __init__(self, build: Callable[..., Any], **overrides: Any):
        self.builder = build if isinstance(build, Builder) else Builder(build)
        self.optimizer = self.builder(**overrides)
        self.init, self.plain_update = self.optimizer

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

    def run(self, params: Any, gradients: Any) -> Iterator[tuple[Any, Any, Any]]:
        """(updates, state, params) after each step, eagerly."""
        state = self.init(params)
        for gradient in gradients:
            updates, state = self.update(gradient, state, params)
            params = self.apply(params, updates)
            yield updates, state, params


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
