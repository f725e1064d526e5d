"""Every factory inside `shard_map`, which checks over what values differ, and `pmap`.

Params and state are on every device, and the gradients are averaged: then 20 steps are those of
one device. Each of the three programs of a factory is compiled once.
"""

import jax
import jax.numpy as jnp
import law_subjects as subjects
import numpy as np
import pytest
from jax.sharding import AxisType

from fnopt.testing.laws.subject import Subject, differences, gradients_of, not_finite, params_of

STEPS = 20
SHAPES = {"hidden": (4, 4), "bias": (4,), "gain": ()}
AXIS = jax.P("data")

# zero places its state on a mesh, which is nobody's to do inside of one
NAMES = [name for name in subjects.SUBJECTS if name != "zero"]
FACTORIES = [name for name in NAMES if name in subjects.BY_KINDS | subjects.EXAMPLES]
# rows, columns and codes of leaves as small as these, and norms that are multiplied in
OTHERS = ["adafactor factored", "adamw_8bit of small leaves", "lamb decayed", "lars decayed"]
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


@pytest.mark.parametrize("name", FACTORIES + OTHERS)
def test_data_parallel_steps_are_those_of_one_device(name):
    subject = subject_of(name)
    params, gradients = numbers(0), numbers(1, STEPS, 8)
    mean = {key: g.mean(1) for key, g in gradients.items()}
    wanted = jax.jit(lambda *trees: trained(subject, *trees))(params, mean)
    assert list(not_finite(wanted)) == []

    def in_shard_map(params, gradients):
        parts = jax.tree.map(lambda g: g[:, 0], gradients)
        return trained(subject, params, parts, averaged)

    places = {"in_specs": (jax.P(), jax.P(None, "data")), "out_specs": jax.P()}
    run = jax.shard_map(in_shard_map, mesh=mesh(), **places)
    assert list(differences(jax.jit(run)(params, gradients), wanted)) == []

    def in_pmap(params, gradients):
        return trained(subject, params, gradients, averaged)

    run = jax.pmap(in_pmap, axis_name="data", in_axes=(None, 1), out_axes=None)
    assert list(differences(run(params, gradients), wanted)) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FACTORIES + OTHERS])
def test_what_all_devices_have_stays_the_same_on_all(name):
    """Other configurations, by their types: the results differ over no axis."""
    subject = Subject(subjects.SUBJECTS[name])
    params, gradients = params_of(shapes=SHAPES), stacked(gradients_of(shapes=SHAPES))

    def local(params, gradients):
        return subject.step(params, subject.init(params), averaged(first(gradients)))

    places = {"in_specs": (jax.P(), AXIS), "out_specs": jax.P()}
    params_out, state = jax.eval_shape(
        jax.shard_map(local, mesh=mesh(), **places), params, gradients
    )
    wanted = jax.eval_shape(subject.init, params)
    assert jax.tree.structure(state) == jax.tree.structure(wanted)
    assert [x.shape for x in jax.tree.leaves(params_out)] == [
        x.shape for x in jax.tree.leaves(params)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_device_may_have_its_own(name):
    """Params that differ over the axis: loops begin, and branches end, with values that do."""
    subject = Subject(subjects.SUBJECTS[name])
    params, gradients = stacked(params_of(shapes=SHAPES)), stacked(gradients_of(shapes=SHAPES))

    def local(params, gradients):
        own = first(params)
        moved, _ = subject.step(own, subject.init(own), first(gradients))
        return jax.tree.map(lambda x: x[None], moved)

    run = jax.shard_map(local, mesh=mesh(), in_specs=(AXIS, AXIS), out_specs=AXIS)
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(run, params, gradients))]
    assert shapes == [x.shape for x in jax.tree.leaves(params)]
