"""Every factory steps inside `shard_map`, which checks over what values differ, and `pmap`."""

import jax
import jax.numpy as jnp
import law_subjects as subjects
import pytest
from jax.sharding import AxisType

from fnopt.testing.laws.subject import Subject, gradients_of, params_of

SHAPES = {"hidden": (4, 4), "bias": (4,), "gain": ()}
AXIS = jax.P("data")


# zero places its state on a mesh, which is nobody's to do inside of one
NAMES = [name for name in subjects.SUBJECTS if name != "zero"]
FACTORIES = [name for name in NAMES if name in subjects.BY_KINDS | subjects.EXAMPLES]


def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def stacked(t):
    return jax.tree.map(lambda x: jnp.stack([x] * 8), t)


def first(t):
    return jax.tree.map(lambda x: x[0], t)


def step(subject, params, gradients):
    return subject.step(params, subject.init(params), gradients)


@pytest.mark.parametrize("name", NAMES)
def test_what_all_devices_have_stays_the_same_on_all(name):
    """Params and state on every device, the gradients' mean: the results differ over no axis."""
    subject = Subject(subjects.SUBJECTS[name])
    params, gradients = params_of(shapes=SHAPES), stacked(gradients_of(shapes=SHAPES))

    def local(params, gradients):
        return step(subject, params, jax.lax.pmean(first(gradients), "data"))

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
        moved, _ = step(subject, first(params), first(gradients))
        return jax.tree.map(lambda x: x[None], moved)

    run = jax.shard_map(local, mesh=mesh(), in_specs=(AXIS, AXIS), out_specs=AXIS)
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(run, params, gradients))]
    assert shapes == [x.shape for x in jax.tree.leaves(params)]


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factory_steps_inside_pmap(name):
    subject = Subject(subjects.SUBJECTS[name])
    params, gradients = params_of(shapes=SHAPES), stacked(gradients_of(shapes=SHAPES))

    def local(params, gradients):
        return step(subject, params, jax.lax.pmean(gradients, "data"))[0]

    run = jax.pmap(local, axis_name="data", in_axes=(None, 0), out_axes=None)
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(run, params, gradients))]
    assert shapes == [x.shape for x in jax.tree.leaves(params)]
