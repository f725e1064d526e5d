"""Values that know the call that built them, for repr, equality, hash, pickling and copying.

A transformation or a schedule is a pair of closures or a closure: by itself it compares by
identity, prints as an address and cannot be pickled. `Recipe` keeps the factory and the
arguments beside it, and everything else follows from these two.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def freeze(value: Any) -> Any:
    """A hashable key, equal for equal values: containers by content, arrays by their bytes."""
    if isinstance(value, functools.partial):
        return ("partial", freeze(value.func), freeze(value.args), freeze(value.keywords))
    if isinstance(value, Mapping):
        return ("mapping", frozenset((freeze(k), freeze(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return (type(value), tuple(freeze(v) for v in value))
    if isinstance(value, set | frozenset):
        return ("set", frozenset(freeze(v) for v in value))
    if isinstance(value, jax.core.Tracer):
        return ("traced", id(value))
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ("key", str(value.dtype), freeze(jax.random.key_data(value)))
    if isinstance(value, jax.Array | np.ndarray):
        array = np.asarray(value)
        return ("array", array.shape, str(array.dtype), array.tobytes())
    try:
        hash(value)
    except TypeError:
        return ("identity", id(value))
    return value


class Recipe:
    """Mixin: an object built by `factory(*args, **kwargs)`, a value through and through.

    Attributes:
      factory: the public function that was called.
      arguments: its bound arguments, defaults included.
    """

    factory: Callable[..., Any]
    arguments: inspect.BoundArguments

    @property
    def name(self) -> str:
        """The factory's name, which is the object's name in states, errors and tables."""
        return self.factory.__name__

    def __repr__(self) -> str:
        words = []
        for name, parameter in self.arguments.signature.parameters.items():
            value = self.arguments.arguments[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                words += [_show(v) for v in value]
            elif parameter.kind is parameter.VAR_KEYWORD:
                words += [f"{k}={_show(v)}" for k, v in value.items()]
            elif not (value is parameter.default and (value is None or value is False)):
                words.append(f"{name}={_show(value)}")
        return f"{self.name}({', '.join(words)})"

    def _key(self) -> Any:
        return freeze(dict(self.arguments.arguments))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Recipe):
            return NotImplemented
        return self.factory is other.factory and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.factory, self._key()))

    def __reduce__(self) -> Any:
        return rebuild, (self.factory, self.arguments.args, self.arguments.kwargs)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def bind(
    signature: inspect.Signature, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """The call's arguments, defaults filled in, with errors that begin with the factory's name."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; its signature is {name}{_bare(signature)}") from None
    bound.apply_defaults()
    return bound


def rebuild(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls the factory again: what unpickling does."""
    return factory(*args, **kwargs)


def _bare(signature: inspect.Signature) -> str:
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(parameters))


def _show(value: Any) -> str:
    if isinstance(value, Recipe):
        return repr(value)
    if inspect.isfunction(value):
        return value.__name__
    if type(value) in (list, tuple):
        inner = ", ".join(_show(v) for v in value)
        return f"[{inner}]" if type(value) is list else f"({inner}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return f"{{{', '.join(f'{k!r}: {_show(v)}' for k, v in value.items())}}}"
    if isinstance(value, jax.Array | np.ndarray) and not isinstance(value, jax.core.Tracer):
        return str(value) if value.ndim == 0 else f"array{value.shape}"
    return repr(value)
