"""The law of shardings: on a mesh the state lives beside its params, and nothing moves."""

from __future__ import annotations

import contextlib
import math
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
    param_like,
    params_of,
)

SHAPES = {"layer": {"kernel": (4, 8), "bias": (8,)}, "cube": (2, 3, 4), "gain": ()}
SPECS = {
    "layer": {"kernel": PartitionSpec("x", "y"), "bias": PartitionSpec("y")},
    "cube": PartitionSpec("x", None, "y"),
    "gain": PartitionSpec(),
}
STEPS = 20
FEW_STEPS = 3
TOLERANCE = 1e-5


def shardings(subject: Subject, found: Evidence) -> None:
    """L10, on an automatic and an explicit mesh of two axes."""
    if len(jax.devices()) < 4:
        raise NotApplicable(
            "it needs 4 devices; on a CPU set XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    gradients = [gradients_of(step=i, shapes=SHAPES) for i in range(STEPS)]
    wanted = [p for _, _, p in subject.run(params_of(shapes=SHAPES), gradients, jitted=True)]
    for kind in (AxisType.Auto, AxisType.Explicit):
        with found.at(f"{kind.name} mesh"):
            _check_mesh(subject, found, kind, gradients, wanted)


def _mesh(kind: AxisType) -> Mesh:
    shape = (2, 4) if len(jax.devices()) >= 8 else (2, 2)
    devices = jax.devices()[: shape[0] * shape[1]]
    return jax.make_mesh(shape, ("x", "y"), axis_types=(kind, kind), devices=devices)


def _check_mesh(
    subject: Subject, found: Evidence, kind: AxisType, gradients: list[Any], wanted: list[Any]
) -> None:
    mesh = _mesh(kind)

    def put(t: Any) -> Any:
        return jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), t, SPECS)

    explicit = kind is AxisType.Explicit
    with jax.set_mesh(mesh) if explicit else contextlib.nullcontext():
        params = put(params_of(shapes=SHAPES))
        subject = Subject(subject.builder, **subject.builder.plan(params))
        counted = Counted(subject.step)
        step = jax.jit(counted)
        placed = [put(gradient) for gradient in gradients]
        runs = (("init", subject.init, STEPS), ("jit(init)", jax.jit(subject.init), FEW_STEPS))
        for how, init, steps in runs:
            with found.at(how):
                state = init(params)
                _check_places(found, state, params, mesh)
                moved, later = params, state
                for gradient in placed[:steps]:
                    moved, later = step(moved, later, gradient)
                    found.extend(changes(state, later))
                    found.extend(changes(params, moved))
                found.expect(
                    counted.traces == 1, f"the step was traced {counted.traces} times, expected 1"
                )
                found.extend(differences(jax.device_get(moved), wanted[steps - 1], TOLERANCE))


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
