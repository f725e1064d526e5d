"""The arithmetic, against arrays that are really made."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import fnopt
from fnopt.leaves import nbytes
from fnopt.memory.plans import Row, arrays, plan

PARAMS = {"w": jnp.ones((8, 128), jnp.bfloat16), "b": jnp.ones(128), "steps": jnp.arange(3)}


def test_rows():
    assert plan(fnopt.adam(1e-3), PARAMS).rows == (
        Row("params", "", "float32", 128, 512),
        Row("params", "", "int32", 3, 12),
        Row("params", "", "bfloat16", 1024, 2048),
        Row("gradients", "", "float32", 128, 512),
        Row("gradients", "", "bfloat16", 1024, 2048),
        Row("state", "mu", "float32", 1152, 4608),
        Row("state", "nu", "float32", 1152, 4608),
        Row("state", "scalars", "", 3, 12),
    )


@pytest.mark.parametrize(
    "make", [fnopt.adamw, fnopt.adafactor, fnopt.sm3, fnopt.galore, fnopt.schedule_free_sgd]
)
def test_parts_are_what_real_arrays_take(make):
    optimizer = make(1e-3)
    made = plan(optimizer, PARAMS)
    gradients = {"w": PARAMS["w"], "b": PARAMS["b"]}
    assert made.parameters == 9 * 128
    assert made.parts == {
        "params": sum(map(nbytes, PARAMS.values())),
        "gradients": sum(map(nbytes, gradients.values())),
        "state": sum(map(nbytes, jax.tree.leaves(optimizer.init(PARAMS)))),
    }
    assert made.bytes == sum(made.parts.values())


def test_state_in_codes():
    params = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32), "b": PARAMS["b"]}
    made = plan(fnopt.store(fnopt.lion(1e-3), {"mu": "int8"}), params)
    assert made.rows[2:] == (
        Row("state", "mu", "float32", 128, 512),
        Row("state", "mu", "int8", 256 * 256, 256 * 256),
        Row("state", "mu scales", "float32", 256 * 2, 2048),
        Row("state", "scalars", "", 3, 12),
    )


def test_an_optimizer_without_state():
    assert plan(fnopt.scale(-1.0), PARAMS).parts.keys() == {"params", "gradients"}


def test_gradients_of_another_dtype():
    params = {"w": PARAMS["w"], "c": jnp.ones(2, jnp.complex64)}
    rows = plan(fnopt.sgd(1.0), params, gradients_dtype=jnp.float32).rows
    assert Row("gradients", "", "float32", 1024, 4096) in rows
    assert Row("gradients", "", "complex64", 2, 16) in rows


def test_gradients_of_single_examples_are_said_to_be():
    private = fnopt.dpsgd(0.1, l2_norm_clip=1.0, noise_multiplier=1.0, seed=0)
    names = {row.name for row in plan(private, PARAMS).rows if row.part == "gradients"}
    assert names == {"of each example"}


def test_arrays_keep_their_shardings():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec(None, "x"))
    params = {"w": jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=split)}
    found = [x for x in arrays(fnopt.adam(1e-3), params) if x.name != "scalars"]
    assert [x.part for x in found] == ["params", "gradients", "state", "state"]
    assert {x.leaf.sharding.shard_shape(x.leaf.shape) for x in found} == {(8, 32)}


def test_one_device_of_a_mesh():
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    split = NamedSharding(mesh, PartitionSpec("y", "x"))
    w = jax.ShapeDtypeStruct((256, 1024), jnp.float32, sharding=split)
    optimizer = fnopt.store(fnopt.lion(1e-3), {"mu": "uint4"})
    whole, one = (plan(optimizer, {"w": w}, per_device=i) for i in (False, True))
    assert (whole.parameters, one.parameters) == (256 * 1024, 256 * 1024 // 8)
    assert [row[:3] for row in one.rows] == [row[:3] for row in whole.rows]
    for row, other in zip(one.rows, whole.rows):
        assert row.bytes == (other.bytes if row.name == "scalars" else other.bytes // 8)


@pytest.mark.parametrize("remedy", [None, fnopt.master_weights])
def test_zero_splits_the_state_further(remedy):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    split = NamedSharding(mesh, PartitionSpec(None, "y"))
    w = jax.ShapeDtypeStruct((64, 64), jnp.bfloat16, sharding=split)
    n = 64 * 64
    whole, one = (
        plan(fnopt.adamw(1e-3), {"w": w}, None, remedy, "x", per_device=i) for i in (False, True)
    )
    assert whole.parts == plan(fnopt.adamw(1e-3), {"w": w}, None, remedy).parts
    more = {} if remedy is None else {"master_weights": 4 * n // 8}
    assert one.parts == {"params": n, "gradients": n, "state": 8 * n // 8 + 12} | more


def test_one_device_of_none_holds_all():
    assert plan(fnopt.adam(1e-3), PARAMS, per_device=True) == plan(fnopt.adam(1e-3), PARAMS)


# Remedies


class CopyState(NamedTuple):
    copy: Any
    inner: Any


@fnopt.gradient_transformation
def copied(optimizer):
    def init(params):
        return CopyState(params, optimizer.init(params))

    def update(updates, state, params):
        updates, inner = optimizer.update(updates, state.inner, params)
        return updates, CopyState(state.copy, inner)

    return init, update


def test_what_a_remedy_keeps_is_a_part_of_its_own():
    alone, made = plan(fnopt.adam(1e-3), PARAMS), plan(fnopt.adam(1e-3), PARAMS, remedy=copied)
    assert made.parts == alone.parts | {"copied": 4 * 1152}
    assert made.rows[-1] == Row("copied", "copy", "float32", 1152, 4608)
