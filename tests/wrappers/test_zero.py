"""Each device keeps its part of the state and makes its part of the update."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import fnopt
from fnopt.bench.programs import compiled_operations

SHAPES = {"in": (16, 32), "b": (32,), "stack": (3, 16, 32), "gain": ()}
SPECS = {"in": (None, "model"), "b": ("model",), "stack": (None, None, "model")}
OUT = (32, 8)  # of the model whose gradients are scattered
STEPS = 5

OPTIMIZERS = {
    "adamw": fnopt.adamw(0.01),
    "clip and lamb": fnopt.chain(fnopt.clip_by_global_norm(0.1), fnopt.lamb(0.01)),
    "prodigy": fnopt.prodigy(),
    "adafactor": fnopt.adafactor(0.01, min_dim_size_to_factor=2),
    "adamw_8bit": fnopt.adamw_8bit(0.01, min_size=0),
    "schedule_free": fnopt.schedule_free_adamw(0.01),
    "muon": fnopt.muon(0.01),
    # of full rank, without which rounding chooses the basis
    "soap": fnopt.soap(0.01, precondition_frequency=2, max_precond_dim=16),
    "shampoo": fnopt.shampoo(0.01, update_every=2),
}


def mesh_of(shape, kind):
    names = ("data", "model")[: len(shape)]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


def place_of(name, mesh):
    spec = [axis if axis in mesh.axis_names else None for axis in SPECS.get(name, ())]
    if AxisType.Explicit in mesh.axis_types:
        spec += [None] * (len(SHAPES[name]) - len(spec))
    while AxisType.Auto in mesh.axis_types and spec and spec[-1] is None:
        spec.pop()
    return NamedSharding(mesh, jax.P(*spec))


def values(seed, mesh=None):
    rng = np.random.default_rng(seed)
    made = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
    return (
        made if mesh is None else {k: jax.device_put(x, place_of(k, mesh)) for k, x in made.items()}
    )


def on(mesh):
    return jax.set_mesh(mesh) if AxisType.Explicit in mesh.axis_types else contextlib.nullcontext()


def axis_of(mesh, params):
    planned = AxisType.Auto in mesh.axis_types and len(mesh.axis_names) > 1
    return fnopt.zero_plan(params) if planned else "data"


def run(optimizer, mesh=None):
    params = values(0, mesh)
    state = fnopt.init_sharded(optimizer, params) if mesh else jax.jit(optimizer.init)(params)

    @jax.jit
    def step(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return fnopt.apply_updates(params, updates), state

    for i in range(STEPS):
        params, state = step(params, state, values(1 + i, mesh))
    assert step._cache_size() == 1
    return params, state


MESHES = [((4,), AxisType.Auto), ((2, 2), AxisType.Auto), ((2, 2), AxisType.Explicit)]


def runs():
    """Two optimizers on all meshes, the others on them by turns; the rest of the pairs."""
    for i, name in enumerate(OPTIMIZERS):
        here = MESHES if name in ("adamw", "muon") else [MESHES[i % 3]]
        yield pytest.param(name, here, id=name)
        if rest := [mesh for mesh in MESHES if mesh not in here]:
            # three programs of SPMD more, of a wrapper that does not look at the optimizer
            yield pytest.param(name, rest, id=f"{name} elsewhere", marks=pytest.mark.sweep)


@pytest.mark.parametrize(("name", "meshes"), [*runs()])
def test_the_numbers_of_one_device_from_one_program(name, meshes):
    optimizer = OPTIMIZERS[name]
    wanted, _ = run(optimizer)
    for shape, kind in meshes:
        mesh = mesh_of(shape, kind)
        params = values(0, mesh)
        zero = fnopt.zero(optimizer, axis_of(mesh, params))
        with on(mesh):
            got, state = run(zero, mesh)
            places = fnopt.state_shardings(zero, params)
        for k, x in wanted.items():
            np.testing.assert_allclose(got[k], x, rtol=2e-5, atol=2e-5, err_msg=f"{k} {mesh}")
            assert got[k].sharding.is_equivalent_to(params[k].sharding, x.ndim)
        jax.tree.map(lambda x, p: x.sharding.is_equivalent_to(p, x.ndim) or 1 / 0, state, places)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_device_keeps_its_share(name):
    """Within 2% of an eighth of all bytes, on a mesh that need not exist."""
    mesh = jax.sharding.AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, jax.P())
    shapes = {"w": (512, 256), "v": (256, 512), "b": (512,), "stack": (4, 64, 256)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32, sharding=whole) for k, s in shapes.items()}
    zero = fnopt.zero(OPTIMIZERS[name])
    state, places = zero.init(params), fnopt.state_shardings(zero, params)
    arrays = [
        (x, p)
        for x, p in zip(jax.tree.leaves(state), jax.tree.leaves(places))
        if not jnp.issubdtype(x.dtype, jax.dtypes.extended)
    ]
    all_of_it = sum(fnopt.leaves.nbytes(x) for x, _ in arrays)
    own = sum(
        fnopt.leaves.nbytes(jax.ShapeDtypeStruct(p.shard_shape(x.shape), x.dtype))
        for x, p in arrays
    )
    assert all_of_it / 8 <= own <= 1.02 * all_of_it / 8


def loss_fn(params, x, y):
    hidden = jnp.tanh(x @ params["in"] + params["b"][None])
    return jnp.mean(jnp.square(hidden @ params["out"] - y))


COLLECTIVE = re.compile(r"= \(?(\w+)\[([\d,]*)\]\S* (all-reduce|all-gather|reduce-scatter)\(")


def collectives(program):
    """[(operation, entries)] of a compiled program."""
    found = COLLECTIVE.findall(program.as_text())
    return [(name, int(np.prod([int(n) for n in dims.split(",") if n]))) for _, dims, name in found]


def test_the_program_scatters_gradients_and_gathers_updates():
    mesh = mesh_of((8,), AxisType.Auto)
    params = {k: x for k, x in values(0, mesh).items() if k in ("in", "b")}
    out = np.float32(np.random.default_rng(2).normal(size=OUT))
    params["out"] = jax.device_put(out, NamedSharding(mesh, jax.P()))
    optimizer = fnopt.zero(fnopt.adamw(0.01))
    value_and_grad = fnopt.scattered_value_and_grad(loss_fn)
    rows = NamedSharding(mesh, jax.P("data"))
    batch = [
        jax.device_put(jnp.float32(np.random.default_rng(i).normal(size=s)), rows)
        for i, s in enumerate(((64, 16), (64, 8)))
    ]

    def step(params, state, *batch):
        loss, gradients = value_and_grad(params, *batch)
        updates, state = optimizer.update(gradients, state, params)
        return fnopt.apply_updates(params, updates), state, loss

    state = fnopt.init_sharded(optimizer, params)
    program = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, *batch).compile()
    sizes = sorted(x.size for x in params.values())
    found = collectives(program)
    assert sorted(n for name, n in found if name == "reduce-scatter") == [n // 8 for n in sizes]
    assert sorted(n for name, n in found if name == "all-gather") == sizes
    assert [n for name, n in found if name == "all-reduce"] == [1]  # the loss
    arguments = program.memory_analysis().argument_size_in_bytes
    kept = 4 * sum(sizes)
    assert arguments < kept + 2 * kept / 8 + 4 * (64 * 24 / 8) + 64  # no whole moment


SHARED_OUT = {
    "muon": (OPTIMIZERS["muon"], fnopt.zero),
    "soap": (fnopt.soap(0.01, precondition_frequency=2), fnopt.share_matrices),
    "shampoo": (OPTIMIZERS["shampoo"], fnopt.share_matrices),
}


@pytest.mark.parametrize("name", SHARED_OUT)
def test_matrices_are_shared_out(name):
    """A device's program has an eighth of products and decompositions, and equal numbers.

    Counted in the compiled program, loops as often as they turn: the compiler's own count takes
    one turn of each, and the whole program walks through the stack.
    """
    optimizer, shares = SHARED_OUT[name]
    mesh = mesh_of((8,), AxisType.Auto)
    rng, whole = np.random.default_rng(0), NamedSharding(mesh, jax.P())
    params = {
        f"w{i}": jax.device_put(jnp.float32(rng.normal(size=(32, 32))), whole) for i in range(8)
    }

    def compiled(how):
        def step(params, state):
            updates, state = how.update(params, state, params)
            return fnopt.apply_updates(params, updates), state

        state = jax.jit(how.init)(params)
        program = jax.jit(step).lower(params, state).compile()
        after = params
        for _ in range(3):
            after, state = program(after, state)
        return program, after

    (alone, wanted), (shared, got) = compiled(optimizer), compiled(shares(optimizer))
    assert compiled_operations(shared) / compiled_operations(alone) == pytest.approx(1 / 8)
    for k, x in wanted.items():
        np.testing.assert_allclose(got[k], x, rtol=1e-4, atol=1e-4, err_msg=f"{name} {k}")


def test_extra_arguments_reach_the_optimizer():
    def first(optimizer, params):
        step = lambda p: optimizer.update(p, optimizer.init(p), p, value=jnp.float32(2.0))[0]
        return jax.jit(step)(params)

    mesh = mesh_of((2, 2), AxisType.Explicit)
    with on(mesh):
        updates = first(fnopt.zero(fnopt.polyak_sgd()), values(0, mesh))
    wanted = first(fnopt.polyak_sgd(), values(0))
    for k, x in wanted.items():
        np.testing.assert_allclose(updates[k], x, rtol=1e-5, atol=1e-6)


def test_on_one_device_it_is_the_optimizer():
    wanted, state = run(fnopt.adamw(0.01))
    got, split = run(fnopt.zero(fnopt.adamw(0.01)))
    assert all(np.array_equal(got[k], wanted[k]) for k in wanted)
    assert fnopt.step_count(split) == fnopt.step_count(state) == STEPS
    assert "inner/scale_by_adam/mu/in" in fnopt.named_arrays(split)
    assert fnopt.tree_get(split, "mu")["in"].shape == SHAPES["in"]
    assert fnopt.find(split, type(state["scale_by_adam"])).count == STEPS
    changed = fnopt.zero(fnopt.adamw(fnopt.Tunable(0.01)))
    assert fnopt.hyperparameters(changed.init(values(0)))["learning_rate"] == jnp.float32(0.01)


@pytest.mark.parametrize(
    ("shape", "kind"), [((8,), AxisType.Auto), ((4, 2), AxisType.Explicit)], ids=str
)
def test_scattered_gradients_are_the_gradients(shape, kind):
    mesh = mesh_of(shape, kind)
    x = jnp.float32(np.random.default_rng(0).normal(size=(16, 16)))

    def loss(params, x):
        hidden = jnp.tanh(x @ params["in"] + params["b"][None])
        return jnp.mean(jnp.square(hidden)), {"mean": jnp.mean(hidden)}

    plain = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (wanted, about), g = plain({k: values(0)[k] for k in ("in", "b")}, x)
    with on(mesh):
        params = {k: values(0, mesh)[k] for k in ("in", "b")}
        rows = jax.device_put(x, NamedSharding(mesh, jax.P("data", None)))
        scattered = fnopt.scattered_value_and_grad(loss, "data", has_aux=True)
        (value, aux), gradients = jax.jit(scattered)(params, rows)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(aux["mean"], about["mean"], rtol=1e-5, atol=1e-6)
    for k in g:
        np.testing.assert_allclose(gradients[k], g[k], rtol=1e-4, atol=1e-6)
    assert gradients["in"].sharding.spec[0] == "data"
