import pickle

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding

import fnopt
from fnopt import mesh_axes
from fnopt.splits import ZeroState, is_explicit, like, more_split, shared_over, sharing


def mesh_of(shape=(2, 4), kind=AxisType.Auto):
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind))


@pytest.mark.parametrize(
    ("spec", "shape", "wanted"),
    [
        ((), (6, 8), ("data",)),
        ((), (3, 8), (None, "data")),  # the first that the axis divides
        (("model",), (8, 6), ("model", "data")),  # a whole one before one that is split
        (("model",), (8, 3), (("model", "data"),)),
        (("model",), (4, 3), ("model",)),  # none is left
        (("data",), (8, 8), ("data",)),
        ((("model", "data"),), (8, 8), (("model", "data"),)),
        ((), (), ()),
        ((), (0,), ()),
    ],
)
def test_where_a_leaf_is_cut(spec, shape, wanted):
    place = more_split(NamedSharding(mesh_of(), jax.P(*spec)), shape, "data")
    assert place.spec == jax.P(*wanted)


def test_an_explicit_mesh_spells_every_dimension():
    mesh = mesh_of(kind=AxisType.Explicit)
    place = more_split(NamedSharding(mesh, jax.P(None, None)), (4, 4), "data")
    assert place.spec == jax.P("data", None)


def test_a_plan_is_a_value():
    mesh = mesh_of()
    w = jax.ShapeDtypeStruct((8, 4), "float32", sharding=NamedSharding(mesh, jax.P("model")))
    params = {"w": w, "b": jax.ShapeDtypeStruct((4,), "float32")}
    plan = fnopt.zero_plan(params)
    assert plan == fnopt.zero_plan(params, "data", mesh)
    assert hash(plan) == hash(fnopt.zero_plan(params))
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.by_path == {"w": jax.P("model"), "b": jax.P()}
    assert plan != fnopt.zero_plan(params, "model")
    optimizer = fnopt.zero(fnopt.adam(0.1), plan)
    assert optimizer == pickle.loads(pickle.dumps(optimizer))


def test_mistakes_are_named():
    mesh = mesh_of()
    params = {"w": jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, jax.P()))}
    with pytest.raises(ValueError, match="the mesh has the axes data, model, and no 'fsdp'"):
        fnopt.zero_plan(params, "fsdp")
    with pytest.raises(ValueError, match="must be on one mesh, and are on none"):
        fnopt.zero_plan({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"give it a plan: zero\(optimizer, zero_plan"):
        fnopt.zero(fnopt.adam(0.1)).init(params)
    plan = fnopt.zero_plan({"v": params["w"]})
    with pytest.raises(ValueError, match="the plan has no parameter 'w'"):
        fnopt.zero(fnopt.adam(0.1), plan).init(params)


def test_on_one_device_nothing_is_placed():
    state = ZeroState(None, "data", None)
    x = jnp.ones((4, 4))
    assert state.place(x, (), x, {"w": x}) is None
    assert not is_explicit(x)


def test_where_work_is_shared_out():
    mesh = mesh_of()
    x = jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, jax.P()))
    assert shared_over(x) is None
    with sharing("data"):
        assert shared_over(x) == "data"
        assert shared_over(jnp.ones(3)) is None
    with sharing("rows"):
        assert shared_over(x) is None


def test_a_leaf_keeps_the_axes_that_divide_it():
    w = jax.ShapeDtypeStruct((8, 8), "float32", sharding=NamedSharding(mesh_of(), jax.P("model")))
    assert like((8, 1), w).spec[0] == "model"
    for shape in ((6, 8), (1, 8)):  # of 4 parts
        assert not any(like(shape, w).spec)


def test_a_part_of_a_whole_leaf_is_the_devices_own():
    axes = ("data", "model")
    x = jnp.arange(16.0)

    def local(x):
        return mesh_axes.part(mesh_axes.whole(x, axes), axes)

    place = jax.P(axes)
    run = jax.jit(jax.shard_map(local, mesh=mesh_of(), in_specs=place, out_specs=place))
    assert (run(x) == x).all()
