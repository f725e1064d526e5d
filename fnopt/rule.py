"""What stands inside the boundary: a transformation's rule, its calling convention evened out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from fnopt.tree import PyTree


class Rule(NamedTuple):
    """A transformation as it is inside the boundary: on clean trees, without checks.

    Attributes:
      init: params -> state.
      update: (updates, state, params, **extra_args) -> (updates, state).
      name: the factory's name.
      extras: () -> the extra arguments it reads; None where it takes any.
      per_example: whether it takes the gradients of single examples, with one batch axis in front
        of the params' shapes, and gives updates without it.
      routes: params -> for each leaf the words that say which rule it gets; None where all leaves
        get the one named.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]]
    name: str
    extras: Callable[[], frozenset[str] | None]
    per_example: bool = False
    routes: Callable[[PyTree], PyTree] | None = None


class ParamsNeeded(ValueError):
    """`update` was called without the params that a rule reads."""


def as_rule(pair: Any, name: str, members: tuple[Rule, ...] = ()) -> Rule:
    """An `(init, update)` pair with the calling convention evened out by its signature.

    Raises:
      ParamsNeeded: in its `update`, without params that it needs.
      TypeError: in its `update`, without an extra argument that it needs.
    """
    init, update, *routes = pair
    parameters = inspect.signature(update).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    reads_params = len(positional) > 2
    needs_params = reads_params and positional[2].default is inspect.Parameter.empty
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    read = [p.name for p in [*keyword, *positional[3:]]]
    needed = [p.name for p in keyword if p.default is inspect.Parameter.empty]

    def evened(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        if needs_params and params is None:
            raise ParamsNeeded(f"{name} needs params: call update(updates, state, params)")
        for extra in needed:
            if extra not in extra_args:
                raise TypeError(
                    f"{name} needs {extra}=...: call update(updates, state, params, {extra}=...)"
                )
        kept = extra_args if takes_all else {k: extra_args[k] for k in read if k in extra_args}
        head = (updates, state, params) if reads_params else (updates, state)
        return update(*head, **kept)

    def extras() -> frozenset[str] | None:
        inside = [member.extras() for member in members] if takes_all else []
        if (takes_all and not members) or any(i is None for i in inside):
            return None
        return frozenset(read).union(*(i for i in inside if i is not None))

    words = routes[0] if routes else routes_of(name, members)
    each = any(member.per_example for member in members)
    return Rule(init, evened, name, extras, each, words)


def routed(rule: Rule, params: PyTree) -> PyTree:
    """For each leaf the words that say which rule it gets."""
    return jax.tree.map(lambda _: rule.name, params) if rule.routes is None else rule.routes(params)


def routes_of(name: str, members: tuple[Rule, ...]) -> Callable[[PyTree], PyTree] | None:
    """A chain's or wrapper's routes, if a member has any: its members', in its name."""
    if not any(member.routes for member in members):
        return None

    def routes(params: PyTree) -> PyTree:
        words = [routed(member, params) for member in members]
        return jax.tree.map(lambda *each: f"{name}({', '.join(each)})", *words)

    return routes


def inside(transformation: Any, where: str = "chain") -> Rule:
    """What a wrapper calls: the rule of fnopt's transformations, anyone else's pair evened out.

    Raises:
      TypeError: something else than a transformation.
    """
    if isinstance(transformation, Rule):
        return transformation
    own = getattr(transformation, "rule", None)
    if isinstance(own, Rule):
        return own
    if is_transformation(transformation):
        update = transformation.update
        return as_rule((transformation.init, update), name_of(update))
    hint = "; call the factory first" if callable(transformation) else ""
    raise TypeError(
        f"{where}: expected a transformation with .init and .update, got {transformation!r}{hint}"
    )


def is_transformation(x: Any) -> bool:
    """Whether x has `.init` and `.update`, as optax's transformations and fnopt's have."""
    return (
        not isinstance(x, type)
        and callable(getattr(x, "init", None))
        and callable(getattr(x, "update", None))
        and not isinstance(x, Mapping)
    )


def name_of(update: Callable[..., Any]) -> str:
    """`scale_by_adam` for a closure made by a function of that name."""
    name = getattr(update, "__qualname__", type(update).__name__)
    return name.split(".<locals>")[0].rsplit(".", 1)[-1]


def inside_out(value: Any) -> Any:
    """A factory's argument as its rule sees it: transformations, also in containers, as Rules."""
    if isinstance(value, Rule) or is_transformation(value):
        return inside(value)
    if type(value) in (list, tuple):
        return type(value)(inside_out(v) for v in value)
    if type(value) is dict:
        return {k: inside_out(v) for k, v in value.items()}
    return value


def members_of(value: Any) -> Iterator[Rule]:
    """Every Rule in a value made by `inside_out`."""
    if isinstance(value, Rule):
        yield value
    elif isinstance(value, list | tuple):
        for v in value:
            yield from members_of(v)
    elif isinstance(value, dict):
        yield from members_of(list(value.values()))
