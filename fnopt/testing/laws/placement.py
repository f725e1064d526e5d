"""The law of shardings: on a mesh the state lives beside its params, and nothing moves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fnopt.splits import zero_states
from fnopt.testing.laws.law import Evidence, NotApplicable
from fnopt.testing.laws.subject import (
    Counted,
    Subject,
    changes,
    differences,
    gradients_of,
    named,
    operations,
    param_like,
    params_of,
)

SPECS = {
    "layer": {"kernel": PartitionSpec("x", "y"), "bias": PartitionSpec("y")},
    "cube": PartitionSpec("x", "y", None),
    "gain": PartitionSpec(),
}
STEPS = 8
FEW_STEPS = 2
TOLERANCE = 1e-5
EXCHANGES = ("reshard", "shard_map", "sharding_constraint", "device_put", "split", "psum")


def shardings(subject: Subject, found: Evidence) -> None:
    """L10, on an automatic and an explicit mesh of two axes."""
    if len(jax.devices()) < 2:
        raise NotApplicable(
            "it needs 2 devices, better 6; on a CPU set "
            "XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    gradients = [gradients_of(step=i) for i in range(STEPS)]
    wanted = [p for _, _, p in subject.run(params_of(), gradients, jitted=True)]
    with found.at("Auto mesh"):
        _check_automatic(subject, found, gradients, wanted)
    with found.at("Explicit mesh"):
        _check_explicit(subject, found, gradients, wanted)


def _mesh(kind: AxisType) -> Mesh:
    shape = (2, 3) if len(jax.devices()) >= 6 else (2, 1)
    devices = jax.devices()[: shape[0] * shape[1]]
    return jax.make_mesh(shape, ("x", "y"), axis_types=(kind, kind), devices=devices)


def _put(t: Any, mesh: Mesh) -> Any:
    return jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), t, SPECS)


def _check_automatic(
    subject: Subject, found: Evidence, gradients: list[Any], wanted: list[Any]
) -> None:
    """One program runs every step, and leaves params and state where init put them."""
    mesh = _mesh(AxisType.Auto)
    params = _put(params_of(), mesh)
    subject = Subject(subject.builder, **subject.builder.plan(params))
    counted = Counted(subject.step)
    step = jax.jit(counted)
    runs = (("init", subject.init, STEPS), ("jit(init)", jax.jit(subject.init), FEW_STEPS))
    placed = [_put(gradient, mesh) for gradient in gradients]
    for how, init, steps in runs:
        with found.at(how):
            state = init(params)
            _check_places(found, state, params, mesh)
            moved, later = params, state
            for gradient in placed[:steps]:
                moved, later = step(moved, later, gradient)
            found.extend(changes(state, later))
            found.extend(changes(params, moved))
            traces = counted.traces
            found.expect(traces == 1, f"the step was traced {traces} times, expected 1")
            found.extend(differences(jax.device_get(moved), wanted[steps - 1], TOLERANCE))


def _check_explicit(
    subject: Subject, found: Evidence, gradients: list[Any], wanted: list[Any]
) -> None:
    """Types say where each array is; they stay, from eager and traced init on.

    Numbers are those of one device by the compiler's promise, unless the rule itself moves or
    exchanges values: then they are compared.
    """
    mesh = _mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        params = _put(params_of(), mesh)
        subject = Subject(subject.builder, **subject.builder.plan(params))
        state = subject.init(params)
        _check_places(found, state, params, mesh)
        with found.at("jit(init)"):
            found.extend(moves(state, jax.eval_shape(subject.init, params)))
        traced = jax.make_jaxpr(subject.step, return_shape=True)
        jaxpr, after = traced(params, state, _put(gradients[0], mesh))
        found.extend(moves((params, state), after))
        if any(e.primitive.name.startswith(EXCHANGES) for e in operations(jaxpr.jaxpr)):
            step, moved, later = jax.jit(subject.step), params, state
            for gradient in gradients:
                moved, later = step(moved, later, _put(gradient, mesh))
            found.extend(changes((params, state), (moved, later)))
            found.extend(differences(jax.device_get(moved), wanted[-1], TOLERANCE))


def moves(before: Any, after: Any) -> Iterator[str]:
    """Leaves that the types of a traced step on an explicit mesh move elsewhere."""
    yield from changes(before, after, placement=False)
    for path, x in named(before).items():
        spec, y = PartitionSpec(), named(after).get(path)
        if isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding) and y is not None:
            spec = y.sharding.spec if y.sharding is not None else spec
            if not x.sharding.is_equivalent_to(NamedSharding(x.sharding.mesh, spec), x.ndim):
                yield f"{path} was on {x.sharding.spec} and moved to {spec}"


def _check_places(found: Evidence, state: Any, params: Any, mesh: Mesh) -> None:
    like = {path: param for path, _, param in param_like(state, params)}
    split = [jax.tree_util.keystr(path) for path, _ in zero_states(state)]
    devices = set(mesh.devices.flat)
    for path, leaf in named(state).items():
        if not isinstance(leaf, jax.Array):
            continue
        param = like.get(path)
        if any(path.startswith(head) for head in split):
            same = param is not None and jnp.shape(leaf) == jnp.shape(param)
            found.expect(
                leaf.sharding.device_set == devices and not (same and _share(leaf) > _share(param)),
                f"state{path} is on {leaf.sharding}, less split than its parameter",
            )
            continue
        if param is not None and jnp.shape(leaf) == jnp.shape(param):
            found.expect(
                leaf.sharding.is_equivalent_to(param.sharding, leaf.ndim),
                f"state{path} is on {leaf.sharding}, its parameter on {param.sharding}",
            )
        elif param is None:
            found.expect(
                leaf.sharding.device_set == devices and leaf.sharding.is_fully_replicated,
                f"state{path} is on {leaf.sharding}, not replicated on the params' mesh",
            )
        else:
            found.expect(
                leaf.sharding.device_set == devices,
                f"state{path} is on {leaf.sharding}, not on the params' mesh",
            )


def _share(x: Any) -> int:
    """How many entries of an array one device has."""
    return math.prod(x.sharding.shard_shape(x.shape))
