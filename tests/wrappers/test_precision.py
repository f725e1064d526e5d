import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import fnopt
from fnopt import leaves
from fnopt.wrappers.precision import KahanState, MasterWeightsState

BF16 = jnp.bfloat16
REMEDIES = {
    "master_weights": fnopt.master_weights,
    "split_master": fnopt.split_master,
    "kahan": fnopt.kahan,
}
MASTERS = {name: REMEDIES[name] for name in ("master_weights", "split_master")}


def descend(optimizer, params, gradient, steps):
    """(params, state) after steps of one gradient."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (fnopt.apply_updates(params, updates), state), None

    start = params, optimizer.init(params)
    return jax.jit(lambda c: jax.lax.scan(step, c, length=steps)[0])(start)


def normal(shape, seed=0, dtype=BF16):
    """Normal numbers times powers of ten down to 1e-4."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 0, shape)
    return jnp.asarray(values, jnp.float32).astype(dtype)


def test_plain_bfloat16_stands_still():
    params, _ = descend(fnopt.sgd(1e-3), jnp.ones((), BF16), jnp.ones(()), 1000)
    assert params == 1


@pytest.mark.parametrize("dtype", [BF16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2])
@pytest.mark.parametrize("name", REMEDIES)
def test_a_thousand_small_updates_add_up(name, dtype):
    optimizer = REMEDIES[name](fnopt.sgd(1e-3))
    params, state = descend(optimizer, jnp.ones(3, dtype), jnp.ones(3), 1000)
    assert params.dtype == dtype
    np.testing.assert_allclose(np.asarray(params, np.float64), 0.0, atol=1e-2)
    np.testing.assert_allclose(fnopt.master_params(state, params), 0.0, atol=1e-2)


@pytest.mark.parametrize(
    "optimizer",
    [
        fnopt.sgd(1e-3),
        fnopt.sgd(3e-2, momentum=0.9),
        fnopt.adamw(1e-3, weight_decay=0.1),
        fnopt.adafactor(1e-2, min_dim_size_to_factor=2),
        fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.lion(1e-3)),
    ],
    ids=["sgd", "momentum", "adamw", "adafactor", "clip and lion"],
)
@pytest.mark.parametrize("name", MASTERS)
def test_masters_are_the_float32_run_bit_for_bit(name, optimizer):
    """Eagerly, where no operation is contracted with another."""
    params = {"w": normal((40, 30)), "b": normal((50,), 1)}
    full = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    wrapped = MASTERS[name](optimizer)
    state, full_state = wrapped.init(params), optimizer.init(full)
    for i in range(8):
        gradient = {"w": normal((40, 30), 2 + i), "b": normal((50,), 20 + i)}
        updates, state = wrapped.update(gradient, state, params)
        params = fnopt.apply_updates(params, updates)
        updates, full_state = optimizer.update(gradient, full_state, full)
        full = fnopt.apply_updates(full, updates)
        jax.tree.map(np.testing.assert_array_equal, fnopt.master_params(state, params), full)
        jax.tree.map(np.testing.assert_array_equal, state.inner, full_state)
        rounded = jax.tree.map(lambda p: p.astype(BF16), full)
        if name == "master_weights":
            jax.tree.map(np.testing.assert_array_equal, params, rounded)


@pytest.mark.parametrize("name", MASTERS)
def test_masters_are_the_float32_run_in_a_compiled_loop(name):
    """With a rate that is a power of two its product is exact, contracted or not."""
    params, gradient = normal((300,)), normal((300,), 1, jnp.float32)
    optimizer = fnopt.sgd(2.0**-9)
    moved, state = descend(MASTERS[name](optimizer), params, gradient, 1000)
    full, _ = descend(optimizer, params.astype(jnp.float32), gradient, 1000)
    np.testing.assert_array_equal(fnopt.master_params(state, moved), full)
    np.testing.assert_array_equal(moved, full.astype(BF16))


def test_compensated_sums_are_within_their_bound():
    """Each step may lose 2⁻⁹ of the compensation, itself half a bfloat16 step: 2⁻¹⁷ of θ."""
    steps, n = 200, 500
    params = start = normal((n,))
    optimizer = fnopt.kahan(fnopt.sgd(1.0))
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    exact = np.asarray(start, np.float64)
    largest = np.abs(exact)
    naive = params
    for i in range(steps):
        gradient = 1e-3 * normal((n,), 1 + i, jnp.float32)
        updates, state = step(gradient, state, params)
        params = fnopt.apply_updates(params, updates)
        naive = fnopt.apply_updates(naive, -gradient)
        exact = exact - np.asarray(gradient, np.float64)
        largest = np.maximum(largest, np.abs(exact))
    assert state.compensation.dtype == BF16
    error = np.abs(np.asarray(fnopt.master_params(state, params), np.float64) - exact)
    assert (error <= steps * 2.0**-17 * largest).all()
    assert error.max() < 0.05 * np.abs(np.asarray(naive, np.float64) - exact).max()
    step_of_params = 2.0**-8 * largest
    assert (np.abs(np.asarray(params, np.float64) - exact) <= error + step_of_params).all()


# Which leaves have what


def mixed():
    return {
        "bf16": jnp.ones(2, BF16),
        "f16": jnp.ones(2, jnp.float16),
        "f8": jnp.ones(2, jnp.float8_e5m2),
        "f32": jnp.ones(2),
        "c64": jnp.ones(2, jnp.complex64),
        "int": jnp.arange(2),
        "none": None,
        "name": "relu",
    }


KEPT = {
    "master_weights": {"bf16": "float32", "f16": "float32", "f8": "float32"},
    "split_master": {"bf16": "int16", "f16": "float32", "f8": "float32"},
    "kahan": {"bf16": "bfloat16", "f16": "float16", "f8": "float32"},
}


@pytest.mark.parametrize("name", REMEDIES)
def test_a_mixed_tree(name):
    params = mixed()
    gradient = {k: p if k in ("int", "none", "name") else jnp.ones(2, p.dtype)
                for k, p in params.items()}  # fmt: skip
    optimizer = REMEDIES[name](fnopt.sgd(2.0**-10))
    state = optimizer.init(params)
    found = {k: jax.tree.leaves(kept) for k, kept in state[0].items()}
    assert {k: x[0].dtype.name for k, x in found.items() if x} == KEPT[name]
    for _ in range(3):
        updates, state = optimizer.update(gradient, state, params)
        params = fnopt.apply_updates(params, updates)
    exact = fnopt.master_params(state, params)
    for k in ("bf16", "f16", "f8", "f32", "c64"):
        np.testing.assert_array_equal(exact[k], 1 - 3 * 2.0**-10)
    assert all(exact[k] is params[k] for k in ("int", "none", "name"))
    np.testing.assert_array_equal(params["f32"], 1 - 3 * 2.0**-10)


@pytest.mark.parametrize("name", REMEDIES)
def test_wider_trees_are_left_as_they_are(name, x64):
    """The program is the bare optimizer's."""
    params = {"a": jnp.ones((3, 2), jnp.float32), "b": jnp.ones(3, jnp.float64)}
    bare = fnopt.adamw(1e-3)
    wrapped = REMEDIES[name](bare)
    state = wrapped.init(params)
    assert not jax.tree.leaves(state[0])
    programs = [
        str(jax.make_jaxpr(lambda g, s, p, o=o: o.update(g, s, p))(params, s, params))
        for o, s in ((bare, state.inner), (wrapped, state))
    ]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("dtype", [BF16, jnp.float16, jnp.float8_e4m3fn])
@pytest.mark.parametrize("name", REMEDIES)
def test_abstract_params_have_an_abstract_state(name, dtype):
    params = {"w": jnp.ones((4, 3), dtype)}
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    optimizer = REMEDIES[name](fnopt.adam(1e-3))
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), optimizer.init(params))
    for made in (optimizer.init(abstract), jax.eval_shape(optimizer.init, abstract),
                 jax.jit(optimizer.init)(params)):  # fmt: skip
        assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == wanted


def test_summary_tells_what_is_kept():
    params = {"w": jax.ShapeDtypeStruct((64, 32), BF16)}
    bytes_each = {"master_weights": 4, "split_master": 2, "kahan": 2}
    fields = {"master_weights": "master", "split_master": "low", "kahan": "compensation"}
    for name, remedy in REMEDIES.items():
        table = fnopt.summary(remedy(fnopt.sgd(1e-3)), params)
        assert table.rows[0].bytes == bytes_each[name] * 64 * 32
        assert table.rows[0].state.startswith(fields[name] + " ")


# In other wrappers, around other wrappers


def wrapped_in(remedy):
    inner = remedy(fnopt.sgd(1e-3))
    labels = {"w": "low", "b": "full"}
    return {
        "chain": fnopt.chain(fnopt.identity(), inner),
        "partition": fnopt.partition({"low": inner, "full": fnopt.sgd(1e-3)}, labels),
        "route": fnopt.route({"w": inner}, fnopt.sgd(1e-3)),
        "masked": fnopt.masked(inner, {"w": True, "b": False}),
        "guard": fnopt.guard(inner, max_consecutive=3, on_limit="reset"),
        "ema_params": fnopt.ema_params(inner, 0.5),
        "accumulate": fnopt.accumulate(inner, 2),
        "a chain of optax": optax.chain(optax.identity(), inner),
        "around ema_params": remedy(fnopt.ema_params(fnopt.sgd(1e-3), 0.5)),
        "around accumulate": remedy(fnopt.accumulate(fnopt.sgd(1e-3), 2)),
        "around optax": remedy(optax.sgd(1e-3)),
        "around a flat vector": remedy(fnopt.flatten(fnopt.sgd(1e-3))),
        "around itself": remedy(inner),
    }


NESTINGS = list(wrapped_in(fnopt.kahan))


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("name", REMEDIES)
def test_nesting(name, nesting, standard_numerics):
    optimizer = wrapped_in(REMEDIES[name])[nesting]
    params = {"w": jnp.ones((3, 2), BF16), "b": jnp.ones(3)}
    gradient = {"w": jnp.ones((3, 2), BF16), "b": jnp.ones(3)}
    steps = 400 * (2 if "accumulate" in nesting else 1)
    moved, state = descend(optimizer, params, gradient, steps)
    assert moved["w"].dtype == BF16
    np.testing.assert_allclose(np.asarray(moved["w"], np.float32), 0.6, atol=4e-3)
    if nesting != "masked":
        np.testing.assert_allclose(moved["b"], 0.6, atol=1e-4)
    exact = fnopt.master_params(state, moved)
    np.testing.assert_allclose(exact["w"], 0.6, atol=1e-3)
    evaluated = fnopt.eval_params(state, moved)
    assert evaluated["w"].dtype == BF16
    np.testing.assert_allclose(np.asarray(evaluated["w"], np.float32), 0.6, atol=1e-2)


@pytest.mark.parametrize("name", REMEDIES)
def test_one_remedy_inside_another_keeps_nothing(name):
    state = fnopt.master_weights(REMEDIES[name](fnopt.sgd(1e-3))).init({"w": jnp.ones(2, BF16)})
    assert not jax.tree.leaves(state.inner[0])


def test_a_state_that_is_made_anew_inside_of_update_is_the_same():
    params = jnp.ones(3, BF16)
    optimizer = fnopt.lookahead(fnopt.kahan(fnopt.sgd(0.1)), 2, 0.5, reset_state=True)
    moved, state = descend(optimizer, params, jnp.ones(3), 4)
    assert fnopt.find(state, KahanState).compensation.dtype == BF16
    np.testing.assert_allclose(np.asarray(moved, np.float32), 0.8, atol=4e-3)


def test_a_flat_vector_of_several_dtypes_cannot_be_told():
    params = {"a": jnp.ones(2, BF16), "b": jnp.ones(2)}
    fnopt.flatten(fnopt.flatten(fnopt.sgd(1e-3))).init(params)
    with pytest.raises(ValueError, match=r"float32 vector has leaves of bfloat16, float32"):
        fnopt.flatten(fnopt.master_weights(fnopt.sgd(1e-3))).init(params)
    alone = fnopt.flatten(fnopt.master_weights(fnopt.sgd(1e-3)))
    moved, _ = descend(alone, jnp.ones(2, BF16), jnp.ones(2), 400)
    np.testing.assert_allclose(np.asarray(moved, np.float32), 0.6, atol=4e-3)


@pytest.mark.parametrize("name", REMEDIES)
def test_checkpoints_and_donation(name):
    params = {"w": normal((4, 3)), "h": normal((5,), 1, jnp.float16)}
    optimizer = REMEDIES[name](fnopt.adam(1e-3))
    step = jax.jit(
        lambda p, s: (lambda u, s: (fnopt.apply_updates(p, u), s))(*optimizer.update(p, s, p)),
        donate_argnums=(0, 1),
    )
    state = optimizer.init(params)
    arrays = [x for x in jax.tree.leaves((params, state)) if x.size]
    assert len({x.unsafe_buffer_pointer() for x in arrays}) == len(arrays)
    for _ in range(3):
        params, state = step(params, state)
    saved = {k: np.asarray(x) for k, x in fnopt.named_arrays(state).items()}
    again = fnopt.restore(optimizer.init(params), saved)
    jax.tree.map(np.testing.assert_array_equal, again, state)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", REMEDIES)
def test_on_a_mesh(name, kind):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(kind, kind))
    place = NamedSharding(mesh, PartitionSpec("x", "y"))
    optimizer = REMEDIES[name](fnopt.adamw(1e-3))
    params, gradient = normal((4, 8)), normal((4, 8), 1)
    wanted, _ = descend(optimizer, params, gradient, 5)
    with jax.set_mesh(mesh):
        params, gradient = (jax.device_put(x, place) for x in (params, gradient))
        for init in (optimizer.init, jax.jit(optimizer.init)):
            (kept,) = jax.tree.leaves(init(params)[0])
            assert kept.sharding.is_equivalent_to(place, 2)
        moved, state = descend(optimizer, params, gradient, 5)
        assert jax.tree.leaves(state[0])[0].sharding.is_equivalent_to(place, 2)
    np.testing.assert_array_equal(np.asarray(moved), np.asarray(wanted))


# The corners


@pytest.mark.parametrize("name", REMEDIES)
def test_infinite_and_nan_updates_are_seen_and_stay(name):
    params = jnp.ones(3, BF16)
    optimizer = REMEDIES[name](fnopt.sgd(1.0))
    state = optimizer.init(params)
    for gradient in ([jnp.inf, jnp.nan, 2.0**-10], [0.0, 0.0, 2.0**-10]):
        updates, state = optimizer.update(jnp.array(gradient), state, params)
        params = fnopt.apply_updates(params, updates)
        exact = fnopt.master_params(state, params)
        assert not np.isfinite(np.asarray(params, np.float32)[:2]).any()
        assert not np.isfinite(np.asarray(exact)[:2]).any()
    assert exact[2] == 1 - 2.0**-9


@pytest.mark.parametrize("name", REMEDIES)
@pytest.mark.parametrize("dtype", [BF16, jnp.float16])
def test_a_sum_beyond_the_largest_number_stays_at_it_and_comes_back(name, dtype):
    most = float(jnp.finfo(dtype).max)
    params = jnp.full(2, most, dtype)
    optimizer = REMEDIES[name](fnopt.sgd(1.0))
    state = optimizer.init(params)
    push = jnp.full(2, most * 2.0**-11)
    for sign in (-1.0, 1.0, 1.0):
        updates, state = optimizer.update(sign * push, state, params)
        params = fnopt.apply_updates(params, updates)
        assert np.isfinite(np.asarray(params, np.float32)).all()
    exact = fnopt.master_params(state, params)
    np.testing.assert_allclose(exact, most * (1 - 2.0**-11), rtol=2.0**-12)


def test_from_one_no_update_leads_to_a_tiny_negative_number():
    """The difference has no float32; what is kept then belongs to where the parameter lands."""
    params = jnp.ones((), BF16)
    for name, remedy in REMEDIES.items():
        optimizer = remedy(fnopt.sgd(1.0))
        updates, state = optimizer.update(jnp.float32(1 - 2.0**-24), optimizer.init(params), params)
        params_now = fnopt.apply_updates(params, updates)
        for value in (1.0, -1.0):
            more, state_now = optimizer.update(jnp.float32(value), state, params_now)
            after = fnopt.apply_updates(params_now, more)
            exact = fnopt.master_params(state_now, after)
            assert float(exact) == pytest.approx(2.0**-24 - value, abs=2.0**-23), name


def test_params_set_from_outside_start_their_masters_anew():
    optimizer = fnopt.master_weights(fnopt.sgd(2.0**-10))
    params, state = descend(optimizer, jnp.ones(2, BF16), jnp.ones(2), 3)
    params = params.at[0].set(5.0)
    np.testing.assert_array_equal(fnopt.master_params(state, params), [5.0, 1 - 3 * 2.0**-10])
    params, state = descend(optimizer, params, jnp.ones(2), 0)
    _, state = optimizer.update(jnp.ones(2), state, params)
    np.testing.assert_array_equal(fnopt.find(state, MasterWeightsState).master["bfloat16"][0],
                                  5 - 2.0**-10)  # fmt: skip


def test_zero_and_numbers_too_small_for_the_halves():
    params = jnp.array([0.0, -0.0, 2.0**-10, 2.0**-125], BF16)
    optimizer = fnopt.split_master(fnopt.sgd(1.0))
    gradient = jnp.array([0.0, 0.0, 2.0**-10 + 2.0**-30, 2.0**-124])
    moved, state = descend(optimizer, params, gradient, 1)
    exact = fnopt.master_params(state, moved)
    np.testing.assert_array_equal(exact, [0, 0, -(2.0**-30), -(2.0**-125)])


def test_params_are_needed():
    for remedy in REMEDIES.values():
        optimizer = remedy(fnopt.sgd(1e-3))
        with pytest.raises(ValueError, match=r"needs params: call update"):
            optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2, BF16)))


# The dtypes that `init` is told


def test_stored_dtypes():
    cleaned = {"a": jnp.ones(2), "b": jnp.ones(3), "c": None}
    a, b = cleaned["a"], cleaned["b"]
    narrow, wide = jnp.dtype(BF16), jnp.dtype(jnp.float32)
    assert leaves.stored_dtype(a) == wide
    with leaves.storing(cleaned, [narrow, None, None]):
        assert (leaves.stored_dtype(a), leaves.stored_dtype(b)) == (narrow, wide)
        with leaves.storing({"a": a, "b": b}, [wide, narrow]):
            assert (leaves.stored_dtype(a), leaves.stored_dtype(b)) == (wide, narrow)
        assert (leaves.stored_dtype(a), leaves.stored_dtype(b)) == (narrow, wide)
        assert leaves.stored_dtype(jnp.ones(2)) == wide
        assert leaves.stored_dtypes({"a": a, "b": 1.5, "c": 3}) == [narrow, wide, None]
    assert leaves.stored_dtype(a) == wide
    user = {"x": 1.5, "y": 3, "z": jnp.ones(2, BF16), "n": None}
    assert leaves.stored_dtypes(user) == [None, wide, None, narrow]


def test_an_error_in_init_leaves_no_dtypes_behind():
    seen = []

    def init(params):
        seen.append(params)
        raise ZeroDivisionError

    optimizer = fnopt.GradientTransformation(init, lambda updates, state: (updates, state))
    with pytest.raises(ZeroDivisionError):
        optimizer.init(jnp.ones(2, BF16))
    assert leaves.stored_dtype(seen[0]) == jnp.float32
