"""The law of purity: the same numbers eagerly, jitted, scanned, mapped and in any container."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt.testing.laws.law import Evidence
from fnopt.testing.laws.subject import (
    Subject,
    changes,
    differences,
    gradients_of,
    op_by_op,
    params_of,
)

STEPS = 3
TOLERANCE = 1e-4


class Fields(NamedTuple):
    """The leaves of the checks' tree as a named tuple."""

    kernel: Any
    bias: Any
    cube: Any
    gain: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """The leaves of the checks' tree as a registered dataclass, in another order."""

    gain: Any
    cube: Any
    bias: Any
    kernel: Any


def _by_name(t: Any) -> dict[str, Any]:
    layer = t["layer"]
    return {"kernel": layer["kernel"], "bias": layer["bias"], "cube": t["cube"], "gain": t["gain"]}


CONTAINERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "a list": (
        lambda t: list(_by_name(t).values()),
        lambda t: dict(zip(("kernel", "bias", "cube", "gain"), t)),
    ),
    "a NamedTuple": (lambda t: Fields(**_by_name(t)), lambda t: t._asdict()),
    "a dataclass": (lambda t: Module(**_by_name(t)), lambda t: dict(vars(t))),
    "a dict with other names, so in another order": (
        lambda t: {f"{'dcba'[i]}_{k}": x for i, (k, x) in enumerate(_by_name(t).items())},
        lambda t: {k[2:]: x for k, x in t.items()},
    ),
}


def pure(subject: Subject, found: Evidence) -> None:
    """L16.

    Eager steps are compared op by op, and one as a user calls it. That a scanned step is a jitted
    one follows from the types of its carry.
    """
    params = params_of()
    gradients = [gradients_of(step=i) for i in range(STEPS)]
    eager = _repeatable(subject, found, params, gradients)
    _compiled(subject, found, params, gradients, eager[-1])
    _in_containers(subject, found, params, gradients, _by_name(eager[1][0]))
    _mapped(subject, found)


def _repeatable(
    subject: Subject, found: Evidence, params: Any, gradients: list[Any]
) -> list[tuple[Any, Any, Any]]:
    """The eager steps, after which the first is made again."""
    state = subject.init(params)
    before = jax.tree.map(np.array, (gradients, state, params))
    eager = list(subject.run(params, gradients))
    with found.at("the same call again, after another"), op_by_op():
        again = subject.look(gradients[0], state, params)
        found.extend(differences(again, eager[0][:2], 0.0))
        found.extend(
            f"an argument was changed: {words}"
            for words in differences((gradients, state, params), before, 0.0)
        )
    return eager


def _compiled(
    subject: Subject,
    found: Evidence,
    params: Any,
    gradients: list[Any],
    eager: Any,
) -> None:
    with found.at("jit against eager"):
        jitted = list(subject.run(params, gradients, jitted=True))[-1]
        found.extend(differences(jitted[1:], eager[1:], TOLERANCE))
    with found.at("scan"):

        def body(carry: Any, gradient: Any) -> Any:
            return subject.advance(gradient, *carry)[1:], None

        def scanned(gradients: Any) -> Any:
            return jax.lax.scan(body, (subject.init(params), params), gradients)[0]

        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *gradients)
        found.extend(changes(eager[1:], jax.eval_shape(scanned, stacked), placement=False))


def _in_containers(
    subject: Subject, found: Evidence, params: Any, gradients: list[Any], usual: Any
) -> None:
    """The same numbers in every container and order; draws at random, in every container.

    A random draw belongs to a leaf's place, so it is compared with a list in the same order.
    """
    for name, (pack, unpack) in CONTAINERS.items():
        with found.at(name):
            packed = [pack(g) for g in (params, *gradients[:2])]
            updates = list(subject.run(packed[0], packed[1:]))[-1][0]
            got, wanted = unpack(updates), usual
            if subject.builder.draws:
                flat = [jax.tree.leaves(t) for t in packed]
                listed = list(subject.run(flat[0], flat[1:]))[-1][0]
                wanted = unpack(jax.tree.unflatten(jax.tree.structure(updates), listed))
            found.extend(differences({k: got[k] for k in usual}, wanted, TOLERANCE))


def _mapped(subject: Subject, found: Evidence) -> None:
    def two_steps(params: Any, gradients: Any) -> Any:
        _, state, params = subject.advance(gradients, subject.init(params), params)
        return subject.advance(gradients, state, params)[1:]

    with found.at("vmap against a loop"):
        singles = [(params_of(), gradients_of(step=0)), (gradients_of(step=1), params_of())]
        batch = jax.tree.map(lambda *xs: jnp.stack(xs), *singles)
        mapped = subject.once(jax.vmap(two_steps))(*batch)
        for i, single in enumerate(singles):
            alone = two_steps(*single)  # by the compiled step
            found.extend(differences(jax.tree.map(lambda x: x[i], mapped), alone, TOLERANCE))
