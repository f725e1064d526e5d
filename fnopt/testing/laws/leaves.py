"""The laws of leaves: what is no float array passes untouched; what is masked out stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnopt.apply import apply_updates
from fnopt.testing.laws.law import Evidence
from fnopt.testing.laws.subject import (
    Subject,
    describe,
    differences,
    gradients_of,
    inexact,
    named,
    not_finite,
    op_by_op,
    params_of,
)


def _function_leaf(x: Any) -> Any:
    """A leaf as in an Equinox module: an activation."""
    return x


def _others() -> tuple[dict[str, Any], dict[str, Any]]:
    """Params and gradients that no rule should see."""
    params = {
        "none": None,
        "integers": jnp.arange(3),
        "switch": True,
        "flags": jnp.array([True, False]),
        "size": 7,
        "activation": _function_leaf,
        "name": "relu",
    }
    gradients = dict.fromkeys(params) | {
        "integers": np.zeros(3, jax.dtypes.float0),
        "flags": np.zeros(2, jax.dtypes.float0),
    }
    return params, gradients


def any_leaves(subject: Subject, found: Evidence) -> None:
    """L7: each kind of leaf, alone among float leaves; empty leaves and trees; scalars."""
    with op_by_op():
        _other_leaves(subject, found)
        _empty_and_scalar(subject, found)
    others, nothing = _others()
    with found.at("integers, flags and None under jit, with float0 gradients"):
        params = params_of() | {k: others[k] for k in ("none", "integers", "flags")}
        gradients = gradients_of() | {k: nothing[k] for k in ("none", "integers", "flags")}
        jax.eval_shape(lambda p: subject.step(p, subject.init(p), gradients), params)


def _other_leaves(subject: Subject, found: Evidence) -> None:
    wanted, clean_state = _clean(subject)
    others, nothing = _others()
    for name in others:
        with found.at(f"a tree with the leaf {name}={others[name]!r}"):
            params = params_of() | {name: others[name]}
            gradients = gradients_of() | {name: nothing[name]}
            state = subject.init(params)
            found.expect(
                _types(state) == _types(clean_state),
                f"the state is {_types(state)}, without the leaf {_types(clean_state)}",
            )
            updates, after = subject.update(gradients, state, params)
            found.expect(
                updates[name] is nothing[name],
                f"its gradient {nothing[name]!r} came out as {updates[name]!r}",
            )
            found.expect(_types(after) == _types(state), "the state changed its types")
            updates.pop(name)
            found.extend(differences(updates, wanted))
            moved = apply_updates(params, {**updates, name: nothing[name]})
            found.expect(moved[name] is params[name], "apply_updates changed it")


def _empty_and_scalar(subject: Subject, found: Evidence) -> None:
    empty = jnp.zeros((0, 3))
    trees: dict[str, Any] = {
        "an empty tree": {},
        "an empty list": [],
        "only None": {"a": None},
        "only an empty leaf": {"a": empty},
        "an empty leaf among others": params_of() | {"a": empty},
        "a scalar as the whole tree": jnp.float32(0.5),
        "an array as the whole tree": jnp.ones((4, 3)),
    }
    for name, params in trees.items():
        with found.at(name):
            state = subject.init(params)
            updates, after = subject.update(params, state, params)
            found.extend(not_finite(updates))
            found.extend(not_finite(after, state))
            apply_updates(params, updates)


def _clean(subject: Subject) -> tuple[Any, Any]:
    params = params_of()
    state = subject.init(params)
    return subject.update(gradients_of(), state, params)[0], state


def _types(state: Any) -> list[str]:
    return [describe(x) for x in jax.tree.leaves(state)]


def masked_out_leaves(subject: Subject, found: Evidence) -> None:
    """L15 for an optimizer without a mask: a leaf that is None, as a mask leaves it, is frozen."""
    with op_by_op(), found.at("leaves that are None, as behind a mask"):
        params, gradients = params_of(), gradients_of()
        params["layer"]["kernel"] = gradients["layer"]["kernel"] = None
        params["cube"], gradients["cube"] = jnp.arange(3), np.zeros(3, jax.dtypes.float0)
        state = subject.init(params)
        mine = [p for p in named(state) if "kernel" in p or "cube" in p]
        found.expect(not mine, f"there is state for them: {mine}")
        updates, _ = subject.update(gradients, state, params)
        found.expect(
            updates["layer"]["kernel"] is None and updates["cube"] is gradients["cube"],
            "they do not pass untouched",
        )
    found.note("wrappers with a mask have a check of their own: check_masked")


def masking_freezes(build_masked: Callable[[Any], Any], found: Evidence) -> None:
    """L15 for a masking wrapper: `build_masked(mask)`, where True marks what the rule sees."""
    mask = {"layer": {"kernel": True, "bias": False}, "cube": False, "gain": True}
    subject = Subject(lambda: build_masked(mask))
    with found.at("masked-out leaves"):
        params = params_of()
        state = subject.init(params)
        mine = [p for p in named(state) if "bias" in p or "cube" in p]
        found.expect(not mine, f"there is state for them: {mine}")
        for updates, _, moved in subject.run(params, [gradients_of(step=i) for i in range(2)]):
            for path, leaf in inexact(updates).items():
                if "bias" in path or "cube" in path:
                    found.expect(not leaf.any(), f"{path} gets the update {leaf.flat[0]:g}, not 0")
                else:
                    found.expect(bool(leaf.any()), f"{path}, which is not masked out, is frozen")
            found.expect(
                bool((moved["cube"] == params["cube"]).all()), "cube, masked out, was moved"
            )
    with found.at("a mask with a misspelled leaf 'kernal'"):
        wrong = {"layer": {"kernal": True, "bias": False}, "cube": False, "gain": True}
        try:
            build_masked(wrong).init(params_of())
        except Exception as error:
            found.expect("kernal" in str(error), f"the error does not name it: {error}")
        else:
            found.breach("is accepted silently")
