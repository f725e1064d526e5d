"""Every factory's state on Auto and Explicit meshes of one, two and three axes, told from shapes.

What is like a parameter is split as it is, where its dimensions allow it; the rest is whole.
"""

import math

import jax
import jax.numpy as jnp
import law_subjects as subjects
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import fnopt
from fnopt import tree
from fnopt.splits import zero_states
from fnopt.testing.laws.subject import Subject, changes

SHAPES = {"w": (8, 16), "stack": (4, 8, 8), "b": (16,), "whole": (3, 5), "scale": ()}
SPECS = {"w": ("x", ("y", "z")), "stack": ("z", "x", "y"), "b": ("y",)}
MESHES = {(8,): ("x",), (2, 4): ("x", "y"), (2, 2, 2): ("x", "y", "z")}
KINDS = [AxisType.Auto, AxisType.Explicit]


def mesh_of(shape, kind=AxisType.Auto):
    return jax.make_mesh(shape, MESHES[shape], axis_types=(kind,) * len(shape))


def names_of(entry):
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def spec_of(name, mesh):
    """The parameter's PartitionSpec, of those axes that the mesh has."""
    spec = SPECS.get(name, (None,) * len(SHAPES[name]))
    kept = [tuple(axis for axis in names_of(entry) if axis in mesh.shape) for entry in spec]
    return jax.P(*[axes if len(axes) > 1 else axes[0] if axes else None for axes in kept])


def shapes_on(mesh):
    return {
        name: jax.ShapeDtypeStruct(
            shape, jnp.float32, sharding=NamedSharding(mesh, spec_of(name, mesh))
        )
        for name, shape in SHAPES.items()
    }


def params_on(mesh):
    rng = np.random.default_rng(0)
    return {
        name: jax.device_put(np.float32(rng.normal(size=x.shape)), x.sharding)
        for name, x in shapes_on(mesh).items()
    }


def built(name, params):
    """The optimizer, told where the params are if it wants to know."""
    build = subjects.SUBJECTS[name]
    return build(**build.plan(params))


def wanted_of(leaf, param, mesh):
    """By the state law: the parameter's entries in those dimensions that their axes divide."""
    if param is None:
        return NamedSharding(mesh, jax.P())
    spec = [*param.sharding.spec, *[None] * (param.ndim - len(param.sharding.spec))]
    parts = [math.prod(mesh.shape[axis] for axis in names_of(entry)) for entry in spec]
    kept = [None if n % k else entry for n, k, entry in zip(leaf.shape, parts, spec)]
    return NamedSharding(mesh, jax.P(*kept))


def share(shape, place):
    return math.prod(place.shard_shape(shape))


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_every_leaf_is_split_as_its_parameter_is(name):
    for kind in KINDS:
        for shape in MESHES:
            mesh = mesh_of(shape, kind)
            params = shapes_on(mesh)
            optimizer = built(name, params)
            places, state = fnopt.state_shardings(optimizer, params), optimizer.init(params)
            assert jax.tree.structure(places) == jax.tree.structure(state)
            further = [head for head, _ in zero_states(state)]
            for (path, leaf, _, param), place in zip(
                tree.align(state, params), jax.tree.leaves(places)
            ):
                told = f"{jax.tree_util.keystr(path)} on {place}, {param}"
                assert isinstance(place, NamedSharding), told
                assert place.mesh == mesh, told
                own = getattr(path[-1], "key", None) if path else None
                if leaf.shape == SHAPES.get(own):
                    assert param is params[own], told
                wanted = wanted_of(leaf, param, mesh)
                if any(path[: len(head)] == head for head in further):
                    cut = share(leaf.shape, place) < share(leaf.shape, wanted)
                    divided = any("x" in names_of(entry) for entry in wanted.spec)
                    able = any(n and n % mesh.shape["x"] == 0 for n in leaf.shape)
                    assert cut or divided or not able, told
                else:
                    assert place.is_equivalent_to(wanted, leaf.ndim), told


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_init_puts_it_there(name):
    mesh = mesh_of((2, 2, 2))
    params = params_on(mesh)
    optimizer = built(name, params)
    places, state = fnopt.state_shardings(optimizer, shapes_on(mesh)), optimizer.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(places)
    for (path, leaf), place in zip(
        jax.tree_util.tree_flatten_with_path(state)[0], jax.tree.leaves(places)
    ):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim), (path, leaf.sharding, place)


@pytest.mark.parametrize("shape", [(8,), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_a_step_leaves_it_there(name, shape):
    """By the types of an explicit mesh, so that there is one compile; of two axes L10 runs it."""
    mesh = mesh_of(shape, AxisType.Explicit)
    params = shapes_on(mesh)
    build = subjects.SUBJECTS[name]
    subject = Subject(build, **build.plan(params))
    with jax.set_mesh(mesh):
        before = params, subject.init(params)
        after = jax.eval_shape(subject.step, *before, params)
    assert list(changes(before, after)) == []
    for (path, x), y in zip(
        jax.tree_util.tree_flatten_with_path(before)[0], jax.tree.leaves(after)
    ):
        was, spec = x.sharding or y.sharding, y.sharding.spec if y.sharding else jax.P()
        told = f"{jax.tree_util.keystr(path)} was on {was} and moved to {spec}"
        assert was is None or was.is_equivalent_to(NamedSharding(mesh, spec), x.ndim), told
