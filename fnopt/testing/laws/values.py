"""The laws of values: identity, checkpoints, and the params to evaluate."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt import tree
from fnopt.core import chain
from fnopt.state import eval_params, named_arrays, restore
from fnopt.testing.laws.hyperparameters import another, constantly
from fnopt.testing.laws.law import Evidence, NotApplicable
from fnopt.testing.laws.subject import Subject, changes, differences, gradients_of, params_of
from fnopt.transforms.clipping import clip_by_global_norm


def identity(subject: Subject, found: Evidence) -> None:
    """L12."""
    one, two = subject.optimizer, subject.builder()
    found.expect(one == two, "two equal calls give unequal optimizers")
    with found.at("hash"):
        found.expect(hash(one) == hash(two), "two equal calls hash differently")
    copies: dict[str, Callable[[], Any]] = {
        "pickle": lambda: pickle.loads(pickle.dumps(one)),
        "copy": lambda: copy.copy(one),
        "deepcopy": lambda: copy.deepcopy(one),
    }
    for how, make in copies.items():
        with found.at(how):
            again = make()
            found.expect(again == one, "gives an unequal optimizer")
    text = repr(one)
    found.expect(re.search(r"\bat 0x[0-9a-f]", text) is None, f"repr shows an address: {text}")
    for name, value in subject.builder.numbers(initial=True).items():
        found.expect(f"{name}=" in text, f"repr does not show {name}: {text}")
        other = another(subject.builder.kinds[name], value)
        found.expect(
            subject.builder(**{name: other}) != one, f"{name}={other:g} gives an equal optimizer"
        )


def checkpoints(subject: Subject, found: Evidence) -> None:
    """L13."""
    params = params_of()
    state = subject.init(params)
    _check_names(found, state)
    _check_rates(subject, found, params)
    with found.at("a clip added to a chain"):
        alone = named_arrays(chain(subject.optimizer).init(params))
        clipped = named_arrays(chain(clip_by_global_norm(1.0), subject.optimizer).init(params))
        moved = sorted(alone.keys() ^ clipped.keys())
        found.expect(not moved, f"it moves the paths {moved[:6]}")
    with found.at("saved by name and restored"):
        state = list(subject.run(params, [gradients_of()]))[-1][1]
        arrays = {name: np.asarray(x) for name, x in named_arrays(state).items()}
        again = restore(subject.init(params), arrays)
        found.extend(changes(state, again))
        found.extend(differences(again, state, 0.0))


def _check_names(found: Evidence, state: Any) -> None:
    names = named_arrays(state)
    positions = [n for n in names if any(word.isdigit() for word in n.split("/"))]
    found.expect(not positions, f"positions instead of names: {positions[:4]}")
    found.expect(
        len(names) == len(jax.tree.leaves(state)), "several leaves of the state have one name"
    )


def _check_rates(subject: Subject, found: Evidence, params: Any) -> None:
    builder = subject.builder
    tracked = [name for name, kind in builder.kinds.items() if kind.tracked]
    if not tracked and builder.accepts("learning_rate"):
        tracked = ["learning_rate"]
    if not tracked:
        found.note("no rate was tried: the builder shows no learning rate")
    for name in tracked:
        with found.at(f"{name} as a schedule"):
            scheduled = Subject(builder, **{name: constantly(0.01)}).init(params)
            constant = Subject(builder, **{name: 0.01}).init(params)
            found.extend(changes(constant, scheduled))


def evaluation_params(subject: Subject, found: Evidence) -> None:
    """L14."""
    params = params_of(jnp.bfloat16)
    state = subject.init(params)
    if not any(tree.nodes(state, lambda x: hasattr(type(x), "eval_params"))):
        found.extend(differences(eval_params(state, params), params, 0.0))
        raise NotApplicable("it keeps no averages: no state in it has a method eval_params")
    state = list(subject.run(params, [gradients_of(jnp.bfloat16)] * 2))[-1][1]
    own = eval_params(state, params)
    found.extend(changes(params, own))
    inside = chain(clip_by_global_norm(1e6), chain(subject.optimizer))
    nested = Subject(lambda: inside)
    nested.builder.extras = subject.builder.extras
    with found.at("inside chain(clip, chain(...))"):
        deep = list(nested.run(params, [gradients_of(jnp.bfloat16)] * 2))[-1][1]
        found.extend(differences(eval_params(deep, params), own, 1e-2))
