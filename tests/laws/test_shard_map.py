"""Every factory inside `shard_map`, which checks over what values differ, and `pmap`.

Params and state are on every device, and the gradients are averaged: then the steps are those of
one device. Most of it is read from types.
"""

import jax
import jax.numpy as jnp
import law_subjects as subjects
import numpy as np
import pytest
from jax.sharding import AxisType

from fnopt.testing.laws.subject import Subject, differences, not_finite, operations

STEPS = 20
SHAPES = {"hidden": (4, 4), "bias": (4,), "gain": ()}
AXIS = jax.P("data")

# zero places its state on a mesh, which is nobody's to do inside of one
NAMES = [name for name in subjects.SUBJECTS if name != "zero"]
FACTORIES = [name for name in NAMES if name in subjects.BY_KINDS | subjects.EXAMPLES]
# rows, columns and codes of leaves as small as these, and norms that are multiplied in
OTHERS = ["adafactor factored", "adamw_8bit of small leaves", "lamb decayed", "lars decayed"]
# of each kind of rule one whose numbers are compared in every run
COMPARED = ["adamw", "adafactor factored", "lamb decayed", "muon", "prodigy", "guard"]
# what it puts in the updates' place adds up to infinity in 20 whole steps
STEPPING = {"hutchinson_estimator_diag_hessian": 0.1}


def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def subject_of(name):
    return Subject(
        subjects.SUBJECTS[name].stepping(STEPPING[name])
        if name in STEPPING
        else subjects.SUBJECTS[name]
    )


def numbers(seed, *leading):
    """Multiples of 1/256, so that their means over devices are exact in any order."""
    rng = np.random.default_rng(seed)

    def leaf(shape):
        return np.float32(np.round(256 * rng.normal(size=(*leading, *shape))) / 256)

    return {name: leaf(shape) for name, shape in SHAPES.items()}


def stacked(t):
    return jax.tree.map(lambda x: jnp.stack([x] * 8), t)


def first(t):
    return jax.tree.map(lambda x: x[0], t)


def averaged(gradients):
    return jax.lax.pmean(gradients, "data")


def trained(subject, params, gradients, gradient_of=lambda g: g):
    """(params, state) after as many steps as there are gradients."""

    def step(carry, gradient):
        return subject.step(*carry, gradient_of(gradient)), None

    return jax.lax.scan(step, (params, subject.init(params)), gradients)[0]


def in_shard_map(subject):
    """(params, gradients) -> (params, state) on a mesh, the gradients averaged over it."""

    def local(params, gradients):
        parts = jax.tree.map(lambda g: g[:, 0], gradients)
        return trained(subject, params, parts, averaged)

    places = {"in_specs": (jax.P(), jax.P(None, "data")), "out_specs": jax.P()}
    return jax.shard_map(local, mesh=mesh(), **places)


def exchanges(jaxpr):
    """The operations of a program that bring values from one device to another."""
    names = ("psum", "pmax", "pmin", "all_gather", "all_to_all", "ppermute", "reduce_scatter")
    found = (e.primitive.name for e in operations(jaxpr.jaxpr))
    return [name for name in found if name.startswith(names)]


def shapes_of(t):
    return [x.shape for x in jax.tree.leaves(t)]


@pytest.mark.parametrize("name", NAMES)
def test_values_vary_over_the_axis_where_they_should(name):
    """By the types inside `shard_map`, which say over which axes a value differs.

    Params that are on every device stay equal on all of them, in a program that exchanges nothing
    but the gradients: so it is each device's own. Params that differ over the axis may: loops
    begin, and branches end, with values that do.
    """
    subject = subject_of(name)
    params, gradients = numbers(0), numbers(1, 2, 8)
    jaxpr, (moved, state) = jax.make_jaxpr(in_shard_map(subject), return_shape=True)(
        params, gradients
    )
    assert jax.tree.structure(state) == jax.tree.structure(jax.eval_shape(subject.init, params))
    assert shapes_of(moved) == shapes_of(params)
    assert name in COMPARED or len(exchanges(jaxpr)) == len(SHAPES), (
        "compare its numbers: add it to COMPARED"
    )

    def local(params, gradients):
        own = first(params)
        moved, _ = subject.step(own, subject.init(own), first(gradients))
        return jax.tree.map(lambda x: x[None], moved)

    run = jax.shard_map(local, mesh=mesh(), in_specs=(AXIS, AXIS), out_specs=AXIS)
    assert shapes_of(jax.eval_shape(run, stacked(params), stacked(params))) == shapes_of(
        stacked(params)
    )


def compare(name, run):
    """The numbers of 20 steps against those of one device."""
    subject = subject_of(name)
    params, gradients = numbers(0), numbers(1, STEPS, 8)
    mean = {key: g.mean(1) for key, g in gradients.items()}
    wanted = jax.jit(lambda *trees: trained(subject, *trees))(params, mean)
    assert list(not_finite(wanted)) == []
    assert list(differences(run(subject)(params, gradients), wanted)) == []


def jitted_in_shard_map(subject):
    return jax.jit(in_shard_map(subject))


def in_pmap(subject):
    def local(params, gradients):
        return trained(subject, params, gradients, averaged)

    return jax.pmap(local, axis_name="data", in_axes=(None, 1), out_axes=None)


@pytest.mark.parametrize("run", [jitted_in_shard_map, in_pmap], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", COMPARED)
def test_data_parallel_steps_are_those_of_one_device(name, run):
    compare(name, run)


# Two programs of 20 steps on 8 devices each. That the others' numbers are those of one device
# follows from the types above, if the compiler does what it promises.
@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in FACTORIES + OTHERS if name not in COMPARED])
def test_all_data_parallel_steps_are_those_of_one_device(name):
    compare(name, jitted_in_shard_map)
    compare(name, in_pmap)
