"""The protocol and its boundary: `GradientTransformation`, `chain`.

A factory is written as the paper's mathematics on clean trees and decorated once. The decorator
gives it the recipe, the hyperparameters, the dtypes, the leaves, the errors and the sharding that
every transformation must have, so that no rule has to remember them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from fnopt import leaves, tree
from fnopt.hyperparameters import Hyperparameters, HyperparametersState, kinds_of, label
from fnopt.placement import place
from fnopt.recipe import Recipe, bind
from fnopt.rule import (
    ParamsNeeded,
    Rule,
    as_rule,
    inside,
    inside_out,
    members_of,
    name_of,
    routes_of,
)
from fnopt.storage import marked, narrower, stored
from fnopt.tree import PyTree

P = ParamSpec("P")

EXTRAS = ("value", "grad", "value_fn", "key")
"""Extra arguments that every `update` accepts, whether or not a member reads them."""


class GradientTransformation(Recipe):
    """A pair of pure functions, `init` and `update`, that turns gradients into updates.

        state = optimizer.init(params)
        updates, state = optimizer.update(updates, state, params, **extra_args)
        params = apply_updates(params, updates)

    It unpacks (`init, update = adam(1e-3)`), compares and hashes by the call that built it,
    prints as that call, pickles and copies. To JAX it is a leaf: a static argument of `jit`, a
    static field of a module. `GradientTransformation(init, update)` makes one of your own pair; a
    rule that takes hyperparameters is better decorated with `gradient_transformation`.

    Attributes:
      init: params -> state. Leaves may be `jax.ShapeDtypeStruct`, then so are the state's.
      update: (updates, state, params=None, **extra_args) -> (updates, state).
      rule: the pair as it is inside the boundary.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]]
    rule: Rule

    def __init__(self, init: Callable[..., Any], update: Callable[..., Any]) -> None:
        arguments = bind(_PAIR, type(self).__name__, (init, update), {})
        _enclose(self, as_rule((init, update), name_of(update)), type(self), arguments)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Callable[..., Any]:
        return (self.init, self.update)[index]


_PAIR = inspect.Signature(
    [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("init", "update")]
)


def gradient_transformation(
    factory: Callable[P, tuple[Callable[..., Any], Callable[..., Any]]],
    *,
    per_example: bool = False,
) -> Callable[P, GradientTransformation]:
    """Decorates a rule: a factory of an `(init, update)` pair on clean trees.

    The rule's `update` takes `(updates, state)`, then `params` if it reads them (with a default
    of None if it can do without), then as keyword-only arguments the extra arguments that it
    reads, or `**extra_args` to hand all of them on. A stateless rule's `init` returns `()`.

    Parameters annotated with a kind (`Decay`, `Positive`, ...) may be numbers, arrays, schedules
    or `Tunable`; the rule sees a Python float or a weakly typed scalar. Arguments that are
    transformations (also in lists, tuples and dicts) reach the rule as `Rule`s.

    A parameter annotated `StoredMean` or the like names the dtype or codec that a field of the
    state is kept in; the rule need not read it.

    Args:
      factory: the function to decorate.
      per_example: the rule takes gradients of single examples, with one batch axis in front, and
        gives updates without it: `@partial(gradient_transformation, per_example=True)`.
    """
    signature, kinds, marks = inspect.signature(factory), kinds_of(factory), marked(factory)

    @functools.wraps(factory)
    def build(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        arguments = bind(signature, factory.__name__, args, kwargs)
        given = Hyperparameters(factory.__name__, kinds, arguments)
        inner = {name: inside_out(value) for name, value in arguments.arguments.items()}
        name, members = factory.__name__, tuple(members_of(inner))

        def make(values: dict[str, Any]) -> Rule:
            call = inspect.BoundArguments(signature, inner | values)  # type: ignore[arg-type]
            pair = factory(*call.args, **call.kwargs)
            return as_rule(pair, name, members)

        rule = make(given.static) if given.is_static else _controlled(name, given, make, members)
        each = per_example or rule.per_example
        names = {field: narrower(name, inner[word]) for word, field in marks.items()}
        codes = {field: code for field, code in names.items() if code}
        if codes:
            rule = stored(rule, codes, own=True, axis_name=inner.get("axis_name"))
        return _wrap(rule._replace(per_example=each), build, arguments)

    build.kinds = kinds  # type: ignore[attr-defined]
    return build


def composition(
    factory: Callable[P, GradientTransformation],
) -> Callable[P, GradientTransformation]:
    """Decorates a factory that composes other factories' transformations.

    Validates its arguments under its own name and hands them on as they are: schedules and
    `Tunable`s arrive at the rule that takes them.
    """
    signature, kinds, marks = inspect.signature(factory), kinds_of(factory), marked(factory)

    @functools.wraps(factory)
    def build(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        arguments = bind(signature, factory.__name__, args, kwargs)
        Hyperparameters(factory.__name__, kinds, arguments)
        for word in marks:
            narrower(factory.__name__, arguments.arguments[word])
        call = inspect.BoundArguments(signature, label(kinds, arguments.arguments))  # type: ignore[arg-type]
        result = factory(*call.args, **call.kwargs)
        return _wrap(result.rule._replace(name=factory.__name__), build, arguments)

    build.kinds = kinds  # type: ignore[attr-defined]
    return build


def factories(namespace: Any) -> dict[str, Callable[..., GradientTransformation]]:
    """The factories among a module's public names: `factories(fnopt)["adam"]`.

    A factory's attribute `kinds` maps its hyperparameters' names to their kinds.
    """
    public = {name: value for name, value in vars(namespace).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if hasattr(value, "kinds")}


# The boundary


def _wrap(
    rule: Rule, factory: Callable[..., Any], arguments: inspect.BoundArguments
) -> GradientTransformation:
    return _enclose(object.__new__(GradientTransformation), rule, factory, arguments)


def _enclose(
    transformation: GradientTransformation,
    rule: Rule,
    factory: Callable[..., Any],
    arguments: inspect.BoundArguments,
) -> GradientTransformation:
    """Gives the transformation its recipe, its rule and the rule's boundary."""
    name = rule.name

    def init(params: PyTree) -> PyTree:
        cleaned, start = leaves.clean(params, params), _beginning(rule, params)
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(cleaned)):
            return place(jax.eval_shape(start, cleaned), cleaned)
        return place(start(cleaned), cleaned, original=params)

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        _check_extras(rule, extra_args)
        like = updates if params is None else params
        each = rule.per_example
        if params is not None:
            leaves.require_same_structure(name, ("updates", "params"), updates, params)
            leaves.require_same_shapes(name, updates, params, per_example=each)
        cleaned = leaves.clean(updates, like)
        clean_params = None if params is None else leaves.clean(params, params)
        wanted = leaves.of_one_example(cleaned) if each else cleaned
        try:
            with leaves.storing(clean_params, leaves.stored_dtypes(params)):
                new_updates, new_state = rule.update(cleaned, state, clean_params, **extra_args)
        except ParamsNeeded:
            raise
        except Exception as error:
            _explain(_beginning(rule, like), name, state, wanted, error)
            raise
        merged = leaves.merge(name, new_updates, updates, wanted)
        return merged, leaves.conform(name, new_state, state)

    transformation.init, transformation.update = init, update
    transformation.rule, transformation.factory = rule, factory
    transformation.arguments = arguments
    return transformation


def _check_extras(rule: Rule, extra_args: Mapping[str, Any]) -> None:
    unusual = [name for name in extra_args if name not in EXTRAS]
    known = rule.extras() if unusual else None
    for name in unusual:
        if known is not None and name not in known:
            words = sorted(known) + [e for e in EXTRAS if e not in known]
            raise TypeError(
                f"{rule.name}: unknown extra argument {name!r}; known here: {', '.join(words)}"
            )


def _beginning(rule: Rule, params: PyTree) -> Callable[[PyTree], PyTree]:
    """The rule's `init` of clean params, which can ask for the dtypes of the user's."""
    dtypes = leaves.stored_dtypes(params)

    def start(cleaned: PyTree) -> PyTree:
        with leaves.storing(cleaned, dtypes):
            return rule.init(cleaned)

    return start


def _explain(
    init: Callable[[PyTree], PyTree], name: str, state: PyTree, cleaned: PyTree, error: Exception
) -> None:
    """Raises a clear error in place of `error` if the state is not one of this rule and tree."""
    try:
        wanted = jax.eval_shape(init, cleaned)
    except Exception:
        return
    leaves.require_same_structure(name, ("state", "a state for these params"), state, wanted)
    pairs = jax.tree_util.tree_flatten_with_path(state)[0]
    for (path, s), w in zip(pairs, jax.tree.leaves(wanted)):
        if jnp.shape(s) != w.shape:
            raise ValueError(
                f"{name}: state{jax.tree_util.keystr(path)} has shape {jnp.shape(s)}, but "
                f"these params need shape {w.shape}: was the state made for other params?"
            ) from error


def _controlled(
    name: str,
    given: Hyperparameters,
    make: Callable[[dict[str, Any]], Rule],
    members: tuple[Rule, ...],
) -> Rule:
    """A rule whose hyperparameters live in the state: built anew with them at each trace."""
    changing = bool(given.scheduled or given.tunable)
    fixed = None if changing else make(given.static)

    def build(current: Mapping[str, Any], tunable: Mapping[str, Any]) -> Rule:
        return fixed or make(given.values(current, tunable))

    def init(params: PyTree) -> PyTree:
        current, tunable = given.start()
        rule = build(current, tunable)
        return HyperparametersState(tree.zero_count(), current, tunable, rule.init(params))

    def update(
        updates: PyTree, state: HyperparametersState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        current = given.current(state.count)
        rule = build(current, state.tunable)
        updates, inner = rule.update(updates, state.rule, params, **extra_args)
        count = tree.increment(state.count)
        return updates, HyperparametersState(count, current, state.tunable, inner)

    routes = fixed.routes if fixed else routes_of(name, members)
    each = any(member.per_example for member in members)
    return Rule(init, update, name, lambda: build(*given.start()).extras(), each, routes)


# Composition


def is_stateless(state: PyTree) -> bool:
    """Whether a member's state is the empty one of a rule without state."""
    return type(state) in (tuple, dict) and not state


def _chain(rules: Mapping[str, Rule]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def init(params: PyTree) -> dict[str, PyTree]:
        states = {name: rule.init(params) for name, rule in rules.items()}
        return {name: state for name, state in states.items() if not is_stateless(state)}

    def update(
        updates: PyTree, state: dict[str, PyTree], params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, dict[str, PyTree]]:
        new = {}
        for name, rule in rules.items():
            updates, inner = rule.update(updates, state.get(name, ()), params, **extra_args)
            if name in state:
                new[name] = inner
        return updates, new

    return init, update


@gradient_transformation
def chain(*transformations: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Applies transformations in order, each to the updates that the one before it gave.

    The state is a dict of the members' states under their factories' names
    (`{"scale_by_adam": ..., "scale_by_learning_rate": ...}`; a second of the same name gets
    `_1`). Members without state leave no trace in it, so adding a clip moves no checkpoint path.

    Args:
      *transformations: fnopt's, or anyone's with `.init` and `.update` of the protocol's shape.

    Raises:
      TypeError: for an argument that is no transformation.
    """
    rules: dict[str, Rule] = {}
    for transformation in transformations:
        rule = inside(transformation)
        same = sum(r.name == rule.name for r in rules.values())
        rules[f"{rule.name}_{same}" if same else rule.name] = rule
    return _chain(rules)


@gradient_transformation
def named_chain(
    *pairs: tuple[str, Any], **transformations: Any
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`chain` under your own names: `named_chain(clip=clip(1.0), rule=adam(1e-3))`.

    The state is a dict under these names; members apply in the order given.

    Args:
      *pairs: (name, transformation), as optax has it.
      **transformations: name=transformation.

    Raises:
      TypeError: for a member that is no transformation.
      ValueError: for a name given twice.
    """
    rules: dict[str, Rule] = {}
    for name, transformation in (*pairs, *transformations.items()):
        if name in rules:
            raise ValueError(f"named_chain: two members are named {name!r}")
        rules[name] = inside(transformation, "named_chain")
    return _chain(rules)
