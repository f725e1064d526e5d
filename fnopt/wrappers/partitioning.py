"""One optimizer for these leaves, another for those: `partition` by labels, `route` by paths."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import masks, meetings, tree
from fnopt.core import gradient_transformation, is_stateless
from fnopt.rule import Rule, routed
from fnopt.wrappers.masking import FROZEN, PASSED, masked_extras


class PartitionState(NamedTuple):
    """The optimizers' states by label, each on its own leaves; None in the places of the others.

    An optimizer without state has no entry.
    """

    inner: dict[Any, Any]


def _pick(labels: Any, label: Hashable) -> Any:
    return jax.tree.map(lambda one: bool(one == label), labels)


def _split(
    rules: Mapping[Any, Rule],
    labels_of: Callable[[Any], Any],
    passthrough: bool,
    mask_compatible_extra_args: bool,
    shared: bool,
) -> Any:
    """The pair and routes of a partition, whose labels may name no rule: those are left alone."""

    def init(params: Any) -> PartitionState:
        labels = labels_of(params)
        states = {k: r.init(masks.only(params, _pick(labels, k))) for k, r in rules.items()}
        return PartitionState({k: s for k, s in states.items() if not is_stateless(s)})

    def update(updates: Any, state: PartitionState, params: Any = None, **extra_args: Any) -> Any:
        labels = labels_of(updates if params is None else params)
        found, treedef = tree.flatten(labels)

        def run(label: Any, rule: Rule) -> Callable[[], Any]:
            on = _pick(labels, label)
            seen = None if params is None else masks.only(params, on)
            extras = extra_args
            if mask_compatible_extra_args:
                extras = masked_extras(extra_args, updates, on)
            mine = masks.only(updates, on)
            return lambda: rule.update(mine, state.inner.get(label, ()), seen, **extras)

        runs = [run(label, rule) for label, rule in rules.items()]
        results = meetings.meet(runs) if shared else [one() for one in runs]
        streams = {k: iter(jax.tree.leaves(new)) for k, (new, _) in zip(rules, results)}
        old = treedef.flatten_up_to(updates)
        merged = [
            next(streams[label]) if label in streams else (u if passthrough else jnp.zeros_like(u))
            for label, u in zip(found, old)
        ]
        inner = {k: s for k, (_, s) in zip(rules, results) if k in state.inner}
        return treedef.unflatten(merged), PartitionState(inner)

    def routes(params: Any) -> Any:
        labels = labels_of(params)
        words = {
            k: iter(jax.tree.leaves(routed(r, masks.only(params, _pick(labels, k)))))
            for k, r in rules.items()
        }
        left = PASSED if passthrough else FROZEN
        return jax.tree.map(lambda k: f"{k}: {next(words[k])}" if k in words else left, labels)

    return init, update, routes


def _listed(paths: list[str]) -> str:
    return ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")


def _by_label(labels: Any) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for path, label in jax.tree_util.tree_flatten_with_path(labels)[0]:
        found.setdefault(label, []).append(tree.path_name(path) or "the whole tree")
    return found


@gradient_transformation
def partition(
    transforms: Mapping[Any, Any],
    param_labels: Any = None,
    *,
    labels_fn: Callable[[Any], Any] | None = None,
    mask_compatible_extra_args: bool = False,
    shared: bool = False,
    allow_unused: bool = False,
) -> Any:
    """Optimizers by label: each leaf gets the one that its label names.

        partition({"fast": adam(1e-2), "slow": sgd(1e-3)}, {"head": "fast", "encoder": "slow"})

    Args:
      transforms: label -> transformation.
      param_labels: a tree of labels with the params' structure or a prefix of it, in any container
        type, or a function of the params that returns one.
      labels_fn: any callable in the place of `param_labels`, a module for example.
      mask_compatible_extra_args: split extra arguments that have the params' structure too.
      shared: take norms and sums over the whole tree (a clip's by global norm, Prodigy's d) over
        the leaves of all optimizers that ask for one, in the order in which they ask.
      allow_unused: let an optimizer have no leaf.

    Raises:
      ValueError: unless one of `param_labels` and `labels_fn` is given; in `init` and `update`, for
        a label without an optimizer, an optimizer without a leaf and labels that do not fit the
        params, with the paths.

    Memory: each optimizer's on its leaves.
    """
    if (param_labels is None) == (labels_fn is None):
        raise ValueError("partition: give one of param_labels and labels_fn")

    def labels_of(params: Any) -> Any:
        given = masks.resolve(param_labels, params) if labels_fn is None else labels_fn(params)
        labels = masks.spread("partition", "labels", given, params)
        found = _by_label(labels)
        unknown = {k: paths for k, paths in found.items() if k not in transforms}
        if unknown:
            parts = [f"{k!r} at {_listed(paths)}" for k, paths in unknown.items()]
            raise ValueError(
                f"partition: no optimizer for the label {'; '.join(parts)}; there are optimizers "
                f"for {', '.join(map(repr, transforms))}"
            )
        unused = [k for k in transforms if k not in found]
        if unused and found and not allow_unused:
            parts = [f"{k!r} at {_listed(paths)}" for k, paths in found.items()]
            raise ValueError(
                f"partition: no leaf has the label {', '.join(map(repr, unused))}; the labels are "
                f"{'; '.join(parts)} (allow_unused=True permits it)"
            )
        return labels

    return _split(transforms, labels_of, False, mask_compatible_extra_args, shared)


@dataclasses.dataclass(frozen=True, repr=False)
class Where:
    """What a leaf must be; every condition that is given must hold. See `where`."""

    path: str | None = None
    ndim: int | None = None
    min_ndim: int | None = None
    max_ndim: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    dtype: Any = None

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether a leaf at this path, as `encoder/kernel`, is meant."""
        return (
            (self.path is None or re.search(self.path, path) is not None)
            and (self.ndim is None or leaf.ndim == self.ndim)
            and (self.min_ndim is None or leaf.ndim >= self.min_ndim)
            and (self.max_ndim is None or leaf.ndim <= self.max_ndim)
            and (self.min_size is None or leaf.size >= self.min_size)
            and (self.max_size is None or leaf.size <= self.max_size)
            and (self.dtype is None or leaf.dtype == jnp.dtype(self.dtype))
        )

    def __repr__(self) -> str:
        given = {k: v for k, v in vars(self).items() if v is not None}
        return f"where({', '.join(f'{k}={v!r}' for k, v in given.items())})"


def where(
    path: str | None = None,
    *,
    ndim: int | None = None,
    min_ndim: int | None = None,
    max_ndim: int | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    dtype: Any = None,
) -> Where:
    """A condition on a leaf for `route`: all that is given must hold.

    Args:
      path: a regular expression that is found in the path, as `encoder/kernel`.
      ndim: its number of dimensions; `min_ndim` and `max_ndim` for a range.
      min_ndim: the least number of dimensions.
      max_ndim: the largest number of dimensions.
      min_size: the least number of entries.
      max_size: the largest number of entries.
      dtype: the dtype that it is computed in: float32 for lower precisions too.
    """
    return Where(path, ndim, min_ndim, max_ndim, min_size, max_size, dtype)


DEFAULT = "default"


@gradient_transformation
def route(
    rules: Mapping[Any, Any],
    default: Any = None,
    *,
    passthrough: bool = False,
    shared: bool = False,
    allow_unused: bool = False,
) -> Any:
    """Optimizers by what a leaf is called and what it is: the first condition that holds counts.

        route({"embed|head": adamw(3e-4), where(min_ndim=2): sgd(0.02)}, default=adamw(3e-4))

    Args:
      rules: condition -> transformation, in order. A condition is a regular expression that is
        found in the path (`encoder/kernel`), a `where(...)`, or a function of (path, leaf).
      default: the transformation of all other leaves; without one they are frozen.
      passthrough: without a default, leave the updates of the other leaves as they are.
      shared: as in `partition`.
      allow_unused: let a condition hold nowhere.

    The state has an entry for each condition, by its text, and `default`.

    Raises:
      ValueError: in `init` and `update`, for a condition that holds for no leaf, or only for leaves
        that an earlier one has, with the paths.

    Memory: each optimizer's on its leaves.
    """
    conditions = {_text(c): _condition(c) for c in rules}
    if len(conditions) < len(rules) or DEFAULT in conditions:
        raise ValueError(f"route: two conditions read the same: {[_text(c) for c in rules]}")
    chosen = {_text(c): rule for c, rule in rules.items()}
    if default is not None:
        chosen[DEFAULT] = default

    def labels_of(params: Any) -> Any:
        pairs, treedef = jax.tree_util.tree_flatten_with_path(params)
        held: dict[str, list[str]] = {text: [] for text in conditions}
        labels = []
        for path, leaf in pairs:
            name = tree.path_name(path)
            holding = [text for text, holds in conditions.items() if holds(name, leaf)]
            for text in holding:
                held[text].append(name)
            labels.append(holding[0] if holding else DEFAULT)
        unused = [text for text in conditions if text not in labels]
        if unused and pairs and not allow_unused:
            raise ValueError(
                _unused(unused[0], held[unused[0]], [tree.path_name(p) for p, _ in pairs])
            )
        return jax.tree.unflatten(treedef, labels)

    return _split(chosen, labels_of, passthrough, False, shared)


def _unused(text: str, held: list[str], paths: list[str]) -> str:
    if held:
        return (
            f"route: earlier conditions have every leaf that {text!r} holds for: {_listed(held)} "
            "(allow_unused=True permits it)"
        )
    return (
        f"route: {text!r} holds for no leaf; the paths are {_listed(paths)} "
        "(allow_unused=True permits it)"
    )


def _text(condition: Any) -> str:
    return (
        condition if isinstance(condition, str) else getattr(condition, "__name__", str(condition))
    )


def _condition(condition: Any) -> Callable[[str, Any], bool]:
    if isinstance(condition, str):
        try:
            pattern = re.compile(condition)
        except re.error as error:
            raise ValueError(f"route: {condition!r} is no regular expression: {error}") from None
        return lambda path, leaf: pattern.search(path) is not None
    if callable(condition):
        return condition
    raise TypeError(
        "route: a condition is a regular expression, a where(...) or a function of (path, leaf), "
        f"got {condition!r}"
    )
