"""A call to be made: the builder of the optimizer that the laws look at."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fnopt.hyperparameters import Kind


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
      exact: (state, params) -> the params as exactly as the state knows them, of a wrapper whose
        updates lead from one number of the params' dtype to another; None for any other.
      plan: params on a mesh -> arguments of the factory that depend on where these are.
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
        self.exact: Callable[[Any, Any], Any] | None = None
        self.plan: Callable[[Any], Mapping[str, Any]] = lambda params: {}

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

    def knowing(self, exact: Callable[[Any, Any], Any]) -> Builder:
        """This builder, whose state knows the params more exactly than their dtype can.

        L2, L4 and L6 then look at what these moved by, for the updates are rounded.

        Args:
          exact: (state, params) -> params.
        """
        other = self._copy()
        other.exact = exact
        return other

    def planning(self, plan: Callable[[Any], Mapping[str, Any]]) -> Builder:
        """This builder, some of whose arguments L10 asks for when it knows where the params are."""
        other = self._copy()
        other.plan = plan
        return other

    def _copy(self) -> Builder:
        other = Builder(self.factory, *self.bound.args, **self.bound.kwargs)
        kept = ("given", "extras", "feed", "step_size", "temp_fraction", "draws", "exact", "plan")
        for name in kept:
            setattr(other, name, getattr(self, name))
        return other


def _show(value: Any) -> str:
    return value.__name__ if inspect.isfunction(value) else repr(value)
