"""Bytes between devices: the formulas by hand, and what compiled programs move."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import fnopt
from fnopt.leaves import nbytes
from fnopt.memory import meshes, shapes
from fnopt.memory.collectives import Collective, collectives, received
from fnopt.training import choices

W, B = 4 * 64 * 256, 4 * 256  # bytes


def params_on(text, dtype=jnp.float32, **more):
    shapes = {"w": (64, 256), "b": (256,)} | more
    params = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes.items()}
    return meshes.split(params, meshes.abstract_mesh(meshes.sizes(text)))


# By hand


def test_data():
    found = collectives(fnopt.adamw(1e-3), params_on("data=8"))
    assert found == [Collective("gradients", "all-reduce", ("data",), 2 * 7 * (W + B) // 8)]


def test_data_and_model():
    found = collectives(fnopt.adamw(1e-3), params_on("data=8,model=4"))
    size = W // 4 + B
    assert found == [Collective("gradients", "all-reduce", ("data",), 2 * 7 * size // 8)]


def test_fsdp():
    found = collectives(fnopt.adamw(1e-3), params_on("fsdp=8,model=4"))
    size = W // 4 + B
    assert found == [
        Collective("gradients", "reduce-scatter", ("fsdp",), 7 * size // 8),
        Collective("params", "all-gather", ("fsdp",), 2 * 7 * size // 8),
    ]


def test_fsdp_and_data():
    """The parts that fsdp left are summed over data."""
    found = collectives(fnopt.adamw(1e-3), params_on("data=2,fsdp=8"))
    assert found == [
        Collective("gradients", "reduce-scatter", ("fsdp",), 7 * (W + B) // 8),
        Collective("params", "all-gather", ("fsdp",), 2 * 7 * (W + B) // 8),
        Collective("gradients", "all-reduce", ("data",), 2 * (W + B) // 8 // 2),
    ]


def test_what_fsdp_does_not_divide_is_whole():
    found = collectives(fnopt.sgd(1.0), params_on("fsdp=8", odd=(3, 5)))
    assert Collective("gradients", "all-reduce", ("fsdp",), 2 * 7 * 60 // 8) in found


def test_dtypes():
    params = params_on("fsdp=8", jnp.bfloat16)
    sent = {x.what: x.bytes for x in collectives(fnopt.sgd(1.0), params, jnp.float32)}
    assert sent == {"gradients": 7 * (W + B) // 8, "params": 7 * (W + B) // 8}


def test_integers_have_no_gradients():
    params = params_on("data=8") | {"steps": jax.ShapeDtypeStruct((64,), jnp.int32)}
    found = collectives(fnopt.sgd(1.0), params)
    assert found == collectives(fnopt.sgd(1.0), params_on("data=8"))


def test_one_device():
    assert collectives(fnopt.muon(0.02), params_on("data=1,model=1")) == []


def test_zero():
    """What the state is split over is scattered, and the updates are gathered in float32."""
    params = params_on("data=8,model=4", jnp.bfloat16, odd=(3, 5))
    found = collectives(fnopt.adamw(1e-3), params, zero="data")
    size, odd = W // 4 + B, 4 * 15
    assert sorted(found) == [
        Collective("gradients", "all-reduce", ("data",), round(2 * 7 * odd / 2 / 8)),
        Collective("gradients", "reduce-scatter", ("data",), 7 * size // 2 // 8),
        Collective("updates", "all-gather", ("data",), 7 * size // 8),
    ]


def test_zero_beside_fsdp():
    found = collectives(fnopt.adamw(1e-3), params_on("data=2,fsdp=8"), zero="data")
    assert found == [
        Collective("gradients", "reduce-scatter", ("fsdp",), 7 * (W + B) // 8),
        Collective("params", "all-gather", ("fsdp",), 2 * 7 * (W + B) // 8),
        Collective("gradients", "reduce-scatter", ("data",), (W + B) // 8 // 2),
        Collective("updates", "all-gather", ("data",), (W + B) // 8 // 2),
    ]


# What optimizers gather


@pytest.mark.parametrize(
    ("text", "axes", "part"),
    [("data=8", None, 0), ("data=2,model=4", ("model",), 3 / 4),
     ("fsdp=2,model=4", ("fsdp", "model"), 7 / 8), ("fsdp=4", ("fsdp",), 3 / 4)],
)  # fmt: skip
def test_muon_gathers_each_matrix_once(text, axes, part):
    """In its compute dtype; a vector goes to the fallback."""
    params = params_on(text, jnp.bfloat16, v=(256, 64))
    found = [x for x in collectives(fnopt.muon(0.02), params) if x.what == "optimizer"]
    wanted = Collective("optimizer", "all-gather", axes, int(2 * W * part))
    assert found == ([wanted] if axes else [])


def test_codes_whose_blocks_would_be_cut_are_gathered():
    """64 entries of a block of 128."""
    sent = {x.what: x.bytes for x in collectives(fnopt.adamw_8bit(1e-3), params_on("model=4"))}
    assert sent["optimizer"] > 0
    assert collectives(fnopt.adamw_8bit(1e-3), params_on("model=2")) == []


def test_a_remedy_takes_part():
    params = params_on("data=8", jnp.bfloat16)
    found = collectives(fnopt.lion(1e-3), params, None, fnopt.master_weights)
    assert found == collectives(fnopt.lion(1e-3), params)


NEED = {"dpsgd": ["l2_norm_clip=1.0", "noise_multiplier=1.0"]}


SPLIT_FURTHER = ["adafactor", "adamw_8bit", "adamuon", "lion", "muon", "normuon"]


def told(name, params, zero):
    """The bytes of each collective of an optimizer, or why there is nothing to tell."""
    try:
        optimizer = choices.build(name, NEED.get(name, []), total_steps=10)
        return [x.bytes for x in collectives(optimizer, params, zero=zero)]
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize("zero", [None, "data"])
def test_every_optimizer_is_told_of(zero):
    params = shapes.transformer(200_000).params
    params = meshes.split(params, meshes.abstract_mesh({"data": 2, "fsdp": 2, "model": 2}))
    names = choices.optimizers() if zero is None else SPLIT_FURTHER
    found = {name: told(name, params, zero) for name in names}
    good = lambda bytes_: isinstance(bytes_, list) and bytes_ and min(bytes_) > 0
    assert not {name: bytes_ for name, bytes_ in found.items() if not good(bytes_)}


@pytest.mark.parametrize(
    ("before", "after", "axes", "part"),
    [
        ((None, "model"), (None, None), ("model",), 3 / 4),
        ((None, ("data", "model")), (None, None), ("data", "model"), 7 / 8),
        ((None, ("data", "model")), (None, "data"), ("model",), 3 / 8),
        (("model", None), (None, "model"), ("model",), 3 / 16),
        ((None, None), ("model", None), (), 0),
        (("data", None), ("data", None), (), 0),
    ],
)
def test_what_a_change_of_sharding_moves(before, after, axes, part):
    mesh = meshes.abstract_mesh({"data": 2, "model": 4}, AxisType.Explicit)

    def x(spec):
        place = NamedSharding(mesh, jax.P(*spec))
        return jax.ShapeDtypeStruct((64, 256), jnp.float32, sharding=place)

    assert received(x(before), x(after)) == (axes, W * part)


# What programs move


def moved(program, kind):
    """The bytes of what the collective operations of one kind put out, and how many numbers of
    no shape."""
    found = [
        jax.ShapeDtypeStruct([int(n) for n in shape.split(",") if n], np.float32)
        for types in re.findall(rf"= ([^=]*?) {kind}(?:-start)?\(", program.as_text())
        for shape in re.findall(r"f32\[([\d,]*)\]", types)
    ]
    return sum(nbytes(x) for x in found if x.shape), sum(not x.shape for x in found)


def test_gradients_of_a_step_over_data():
    """The compiler's all-reduce takes each gradient, and the loss."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    optimizer = fnopt.adamw(1e-3)
    params = meshes.split({"w": jnp.ones((64, 256)), "b": jnp.ones(256)}, mesh)
    batch = NamedSharding(mesh, jax.P("data"))
    x = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=batch)

    def loss(params, x):
        return jnp.mean(jnp.square(x @ params["w"] + params["b"][None]))

    def step(params, state, x):
        value, gradients = jax.value_and_grad(loss)(params, x)
        updates, state = optimizer.update(gradients, state, params)
        return fnopt.apply_updates(params, updates), state, value

    program = jax.jit(step).lower(params, optimizer.init(params), x).compile()
    size, scalars = moved(program, "all-reduce")
    (told,) = collectives(optimizer, params)
    assert told.bytes == 2 * 7 / 8 * size
    assert scalars == 1


@pytest.mark.parametrize(("zero", "size"), [(None, 4), ("data", 8)])
def test_matrices_of_an_explicit_mesh(zero, size):
    """The compiler's all-gather takes each matrix of Muon, no more; in `zero` the updates too, and
    more where a stack is filled up: here few matrices to eight."""
    shape = (2, 4) if zero is None else (8, 1)
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    params = meshes.split(shapes.transformer(200_000).params, mesh)
    told = {x.what: x.bytes for x in collectives(fnopt.muon(0.02), params, zero=zero)}
    optimizer = fnopt.muon(0.02) if zero is None else fnopt.zero(fnopt.muon(0.02), zero)
    program = jax.jit(optimizer.update).lower(params, optimizer.init(params), params).compile()
    sent = (size - 1) / size * moved(program, "all-gather")[0]
    wanted = told["optimizer"] + told.get("updates", 0)
    assert wanted == sent if zero is None else wanted < sent < 1.7 * wanted


def test_what_zero_scattered_is_a_share_of_the_sum_over_data():
    mesh = meshes.abstract_mesh({"data": 2, "fsdp": 4})
    whole = NamedSharding(mesh, PartitionSpec())
    params = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=whole)}
    found = {
        (x.what, x.kind, x.axes): x.bytes for x in collectives(fnopt.adam(0.1), params, zero="fsdp")
    }
    size = 4 * 64 * 64
    assert found["gradients", "reduce-scatter", ("fsdp",)] == size * 3 // 4
    assert found["gradients", "all-reduce", ("data",)] == size // 4
