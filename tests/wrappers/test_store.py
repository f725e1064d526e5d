"""`store` around optimizers of every kind, and the checkpoints of what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt
from fnopt.codecs import Encoded, is_encoded
from fnopt.wrappers.store import store

RNG = np.random.default_rng(0)
PARAMS = {
    "embed": np.float32(RNG.normal(size=(32, 64))),
    "layer": {"w": np.float32(RNG.normal(size=(64, 48))), "b": np.zeros(48, np.float32)},
}
BOTH = {"mu": "int8", "nu": "uint8"}


def gradients(t):
    rng = np.random.default_rng(t)
    return jax.tree.map(lambda p: np.float32(rng.normal(size=p.shape)) + p, PARAMS)


def trained(optimizer, params, gradients):
    def step(carry, g):
        state, params = carry
        updates, state = optimizer.update(g, state, params)
        return (state, fnopt.apply_updates(params, updates)), None

    return jax.lax.scan(step, (optimizer.init(params), params), gradients)[0]


def runs(*optimizers, steps=30):
    """(state, params) of each after the steps, all one program."""
    every = jax.tree.map(lambda *gs: np.stack(gs), *map(gradients, range(steps)))
    return jax.jit(lambda p, gs: [trained(o, p, gs) for o in optimizers])(PARAMS, every)


def run(optimizer, steps):
    return runs(optimizer, steps=steps)[0]


def distance(one, two):
    pairs = zip(*map(jax.tree.leaves, (one, two)))
    return np.sqrt(sum(np.sum((np.asarray(a) - np.asarray(b)) ** 2) for a, b in pairs))


def encoded(state):
    pairs = jax.tree_util.tree_flatten_with_path(state, is_leaf=is_encoded)[0]
    return {fnopt.tree.path_name(path): x for path, x in pairs if is_encoded(x)}


KINDS = {
    "adam": (fnopt.adam(0.01), BOTH),
    "adamw of optax": (optax.adamw(0.01), BOTH),
    "lion": (fnopt.lion(0.003), {"mu": "int8"}),
    "ademamix": (fnopt.ademamix(0.01), {"mu": "int8", "slow": "int8", "nu": "uint8"}),
    "adafactor": (
        fnopt.adafactor(0.01, momentum=0.9, min_dim_size_to_factor=1000),
        {"mu": "int8", "v": "uint8"},
    ),
    "schedule-free": (fnopt.schedule_free_adamw(0.01), {"nu": "uint8", "z": "bfloat16"}),
    "momentum": (fnopt.sgd(0.01, momentum=0.9), {"trace": "dynamic8"}),
    "chain": (
        fnopt.chain(fnopt.clip_by_global_norm(10.0), fnopt.adamw(0.01)),
        {"mu": "float8_e4m3fn", "nu": "float8_e5m2"},
    ),
    "4 bits": (fnopt.adamw(0.01), {"mu": "int4", "nu": "uint4"}),
    "dynamic": (fnopt.adamw(0.01), {"mu": "dynamic8", "nu": "dynamic8_unsigned"}),
    "route": (
        fnopt.route({"embed": fnopt.sgd(0.01)}, default=fnopt.adamw(0.01)),
        BOTH,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_where_the_bare_optimizer_goes(kind, standard_numerics):
    """30 steps end within a twentieth of the way, or a tenth in 4 bits, or in signs."""
    optimizer, fields = KINDS[kind]
    bare, ours = runs(optimizer, store(optimizer, fields, min_size=1000))
    most = 0.2 if kind in ("4 bits", "lion") else 0.06
    assert distance(bare[1], ours[1]) < most * distance(bare[1], PARAMS)
    kept = encoded(ours[0])
    narrow = [x for x in jax.tree.leaves(ours[0]) if x.dtype == jnp.bfloat16]
    assert kept or narrow


def test_codes_have_the_shapes_of_the_params_and_small_leaves_stay():
    state = jax.eval_shape(store(fnopt.adamw(0.01), BOTH, block=32).init, PARAMS)
    assert encoded(state) == {}  # no leaf has 4,096 entries
    state = jax.eval_shape(store(fnopt.adamw(0.01), BOTH, block=32, min_size=100).init, PARAMS)
    kept = encoded(state)
    assert sorted(name.split("scale_by_adam/")[1] for name in kept) == [
        "mu/embed", "mu/layer/w", "nu/embed", "nu/layer/w",
    ]  # fmt: skip
    codes = kept["inner/scale_by_adam/mu/layer/w"]
    assert isinstance(codes, Encoded)
    assert (codes.codes.shape, codes.codes.dtype) == ((64, 48), jnp.int8)
    assert (codes.scales.shape, codes.scales.dtype) == ((64, 2), jnp.float32)
    assert fnopt.tree_get(state, "mu")["layer"]["b"].dtype == jnp.float32


def test_where_chooses_leaves():
    for where in (
        "layer",
        {"embed": False, "layer": True},
        lambda p: {"embed": False, "layer": True},
    ):
        optimizer = store(fnopt.adamw(0.01), BOTH, where=where, min_size=0)
        state = jax.eval_shape(optimizer.init, PARAMS)
        assert {name.split("/")[3] for name in encoded(state)} == {"layer"}


def test_codes_that_would_not_be_smaller_are_not_made():
    init = store(fnopt.adamw(0.01), BOTH).init
    assert not encoded(jax.eval_shape(init, {"w": np.ones((5000, 1), np.float32)}))
    assert encoded(jax.eval_shape(init, {"w": np.ones((2500, 2), np.float32)}))


def test_a_second_moment_in_bfloat16_decays():
    """1,000 steps of g=1 and 3,000 of g=.01: to the nearest, it would stop at 0.5."""
    params = {"w": jnp.ones((8, 8))}

    def end(optimizer):
        def step(state, g):
            gradient = {"w": jnp.full((8, 8), g)}
            return optimizer.update(gradient, state, params)[1], None

        both = np.float32([1.0] * 1000 + [0.01] * 3000)
        return fnopt.tree_get(jax.lax.scan(step, optimizer.init(params), both)[0], "nu")["w"]

    @jax.jit
    def ends():
        optimizer, fields = fnopt.adamw(1e-3), {"nu": "bfloat16"}
        chance = end(store(optimizer, fields, min_size=0))
        nearest = end(store(optimizer, fields, min_size=0, rounding="nearest"))
        return end(optimizer), chance, nearest

    full, chance, nearest = map(np.float32, ends())
    np.testing.assert_allclose(chance.mean(), full.mean(), rtol=0.02)
    np.testing.assert_allclose(chance, full, rtol=0.05)
    assert (nearest > 5 * full).all()


def test_an_average_of_params_in_bfloat16_follows():
    """The mean of a parameter that moves by 1e-4 in a step, to half a step of bfloat16 or so."""
    params = {"w": jnp.ones(512)}
    optimizer = fnopt.ema_params(fnopt.sgd(1.0), 0.999)

    def end(optimizer):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update({"w": jnp.full(512, 1e-4)}, state, params)
            return (fnopt.apply_updates(params, updates), state), None

        params_, state = jax.lax.scan(step, (params, optimizer.init(params)), length=4000)[0]
        return fnopt.eval_params(state, params_)["w"]

    stored = store(optimizer, {"average": "bfloat16"}, min_size=0)
    wanted, found = jax.jit(lambda: (end(optimizer), end(stored)))()
    np.testing.assert_allclose(found.mean(), wanted.mean(), rtol=0.004)


def test_eval_params_reads_codes():
    optimizer = store(fnopt.schedule_free_sgd(0.1), {"x": "int8", "z": "int8"}, min_size=0)
    (state, params), (plain, other) = runs(optimizer, fnopt.schedule_free_sgd(0.1), steps=3)
    evaluated = jax.jit(fnopt.eval_params)
    found, wanted = evaluated(state, params), evaluated(plain, other)
    for a, b in zip(*map(jax.tree.leaves, (found, wanted))):
        np.testing.assert_allclose(a, b, atol=0.1)


def test_a_run_that_is_taken_up_again_repeats_itself():
    optimizer = store(fnopt.adamw(0.01), BOTH, min_size=0)
    state, params = run(optimizer, 5)
    again = fnopt.restore(jax.jit(optimizer.init)(params), {
        name: np.asarray(x) for name, x in fnopt.named_arrays(state).items()
    })  # fmt: skip
    update = jax.jit(optimizer.update)
    for a, b in zip(*(jax.tree.leaves(update(gradients(9), s, params)) for s in (state, again))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "fields", [{"mu": "dynamic8", "nu": "dynamic8_unsigned"}, {"mu": "bfloat16"}, {"nu": "uint8"}]
)
def test_checkpoints_are_read_in_other_codes_and_blocks(fields):
    """What is there is decoded and encoded anew, whole float32 fields too."""
    old = store(fnopt.adamw(0.01), BOTH, min_size=0, block=16)
    old_update = jax.jit(old.update)
    state, params = run(old, 3)
    abstract = jax.eval_shape(old.init, params)
    saved = fnopt.named_arrays(state)
    for optimizer in (
        store(fnopt.adamw(0.01), BOTH, min_size=0, block=64),
        store(fnopt.adamw(0.01), fields, min_size=0),
    ):
        new = fnopt.restore(jax.jit(optimizer.init)(params), saved)
        one, _ = old_update(gradients(5), state, params)
        two, state_two = jax.jit(optimizer.update)(gradients(5), new, params)
        for a, b in zip(*map(jax.tree.leaves, (one, two))):
            assert np.linalg.norm(np.subtract(a, b)) < 0.15 * np.linalg.norm(a)
        back = fnopt.restore(jax.jit(old.init)(params), fnopt.named_arrays(state_two))
        assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.tree.structure(fnopt.restore(abstract, saved)) == jax.tree.structure(state)


def test_a_checkpoint_without_scales_is_an_error():
    optimizer = store(fnopt.adamw(0.01), BOTH, min_size=0)
    state = jax.jit(optimizer.init)(PARAMS)
    saved = fnopt.named_arrays(state)
    broken = {name: x for name, x in saved.items() if not name.endswith("mu/embed/scales")}
    with pytest.raises(ValueError, match="missing: inner/scale_by_adam/mu/embed/scales"):
        fnopt.restore(state, broken)


@pytest.mark.parametrize(
    ("fields", "options", "error", "words"),
    [
        (
            {"mu": "int7"},
            {},
            ValueError,
            "store: unknown codec 'int7'; there are bfloat16, float16",
        ),
        ({"mu": jnp.float32}, {}, ValueError, "store: unknown codec 'float32'; there are"),
        ({"mu": [3]}, {}, TypeError, "store: expected a codec's name or a dtype"),
        ({"mu": "int8"}, {"rounding": "up"}, ValueError, "rounding must be 'stochastic' or"),
        ({"mu": "int8"}, {"block": 0}, ValueError, "block must be at least 1"),
        (
            {"m": "int8"},
            {},
            ValueError,
            "no field 'm'; the fields that belong to params are mu, nu",
        ),
        ({"mu": "int8"}, {"where": "decoder"}, ValueError, "'decoder' is found in no path"),
    ],
)
def test_mistakes(fields, options, error, words):
    with pytest.raises(error, match=words):
        store(fnopt.adamw(0.01), fields, **options).init(PARAMS)


def test_a_field_that_a_setting_drops_is_no_mistake():
    state = jax.eval_shape(store(fnopt.adamw(0.01, b1=0.0), BOTH, min_size=0).init, PARAMS)
    assert fnopt.tree_get(state, "mu") is None
    assert encoded(state)


def test_a_negative_entry_under_an_unsigned_code_is_seen_at_once():
    state, _ = run(store(fnopt.adamw(0.01), {"mu": "uint8"}, min_size=0), 1)
    assert any(np.isnan(x.scales).any() for x in encoded(state).values())


def test_inside_and_around_other_wrappers():
    inner = store(fnopt.adamw(0.01), BOTH, min_size=0)
    optimizers = (
        fnopt.guard(inner),
        fnopt.accumulate(inner, 2),
        fnopt.masked(inner, {"embed": True, "layer": False}),
        store(fnopt.ema_params(inner, 0.9), {"average": "bfloat16"}, min_size=0),
        store(store(fnopt.adamw(0.01), {"mu": "int8"}, min_size=0), {"nu": "uint8"}, min_size=0),
    )
    for i, (state, params) in enumerate(runs(*optimizers, steps=4)):
        assert distance(params, PARAMS) > 0, i
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params)), i
        assert encoded(state), i


def test_the_seed_tells_runs_apart():
    one, two, again = (store(fnopt.adamw(0.01), BOTH, min_size=0, seed=seed) for seed in (0, 1, 0))
    states = [state for state, _ in runs(one, two, again, steps=3)]
    mus = [np.asarray(fnopt.tree_get(state, "mu")["embed"].codes) for state in states]
    assert (mus[0] != mus[1]).any()
    np.testing.assert_array_equal(mus[0], mus[2])
