import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import fnopt

SHAPES = {"w": (8, 16), "stack": (4, 8, 8), "b": (16,), "scale": ()}
SPECS = {"w": ("x", "y"), "stack": ("z", "x", "y"), "b": ("y",), "scale": ()}
MESHES = {(4,): ("x",), (2, 2): ("x", "y"), (2, 2, 2): ("x", "y", "z")}


def mesh_of(shape, kind=AxisType.Auto):
    return jax.make_mesh(shape, MESHES[shape], axis_types=(kind,) * len(shape))


def spec_of(name, mesh):
    spec = [axis if axis in mesh.axis_names else None for axis in SPECS[name]]
    while spec and spec[-1] is None and AxisType.Explicit not in mesh.axis_types:
        spec.pop()
    return jax.P(*spec)


def on(mesh):
    values = {k: jnp.float32(np.random.default_rng(0).normal(size=s)) for k, s in SHAPES.items()}
    return {k: jax.device_put(x, NamedSharding(mesh, spec_of(k, mesh))) for k, x in values.items()}


OPTIMIZERS = {
    "adamw": fnopt.adamw(1e-3),
    "adafactor": fnopt.adafactor(1e-3, min_dim_size_to_factor=2),
    "adamw_8bit": fnopt.adamw_8bit(1e-3, min_size=0),
    "schedule_free_adamw": fnopt.schedule_free_adamw(1e-3),
    "muon": fnopt.muon(0.02),
}
# to compile the encoding of a leaf takes seconds
FEW = {"adamw_8bit": ("w", "scale")}


def runs():
    """One optimizer on all meshes of both kinds, the others on two by turns; the other pairs."""
    places = [(shape, kind) for shape in MESHES for kind in (AxisType.Auto, AxisType.Explicit)]
    for i, name in enumerate(OPTIMIZERS):
        here = {i % 6, (i + 3) % 6} if i else set(range(6))
        for j, (shape, kind) in enumerate(places):
            # every rule is on meshes in the laws; here how its state is placed at the start
            marks = [pytest.mark.sweep] * (j not in here)
            yield pytest.param(name, shape, kind, id=f"{name} {shape} {kind}", marks=marks)


@pytest.mark.parametrize(("name", "shape", "kind"), [*runs()])
def test_the_state_is_made_where_it_stays(name, shape, kind):
    """By init_sharded and by a compiled init, which is told of no places; then one compile."""
    mesh, optimizer = mesh_of(shape, kind), OPTIMIZERS[name]
    params = {k: x for k, x in on(mesh).items() if k in FEW.get(name, SHAPES)}
    traces = []

    def step(params, state, gradients):
        traces.append(0)
        updates, state = optimizer.update(gradients, state, params)
        return fnopt.apply_updates(params, updates), state

    with jax.set_mesh(mesh) if kind is AxisType.Explicit else contextlib.nullcontext():
        wanted = fnopt.state_shardings(optimizer, params)
        state = fnopt.init_sharded(optimizer, params)
        jax.tree.map(check, state, wanted)
        jax.tree.map(check, jax.jit(optimizer.init)(params), wanted)
        run = jax.jit(step)
        for _ in range(3):
            params, state = run(params, state, params)
    assert run._cache_size() == len(traces) == 1
    jax.tree.map(check, state, wanted)


def check(leaf, wanted):
    assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), (leaf.sharding, wanted)


def test_a_mesh_alone_is_every_device():
    mesh = mesh_of((2, 2))
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in SHAPES.items()}
    for sharding in jax.tree.leaves(fnopt.state_shardings(fnopt.adam(0.1), params, mesh)):
        assert sharding == NamedSharding(mesh, jax.P())


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must be on one mesh, and are on none"):
        fnopt.state_shardings(fnopt.adam(0.1), {"w": jnp.ones(3)})
    two = {"a": on(mesh_of((4,)))["w"], "b": on(mesh_of((2, 2)))["w"]}
    with pytest.raises(ValueError, match="must be on one mesh, and are on Mesh"):
        fnopt.state_shardings(fnopt.adam(0.1), two)
