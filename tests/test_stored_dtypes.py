"""The arguments that say how one field is stored: `mu_dtype`, `accumulator_dtype` and the like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt import codecs
from fnopt.core import factories
from fnopt.storage import StoreState, marked

MARKED = {
    name: next(iter(marked(factory).items()))
    for name, factory in factories(fnopt).items()
    if marked(factory)
}
"""Factory -> (its argument, the field), for all that have one."""

MOMENTUM = dict(learning_rate=0.05, momentum=0.9)
GIVEN = {
    "adafactor": MOMENTUM,
    "scale_by_adafactor": dict(momentum=0.9),
    "ema": dict(decay=0.9),
    "MultiSteps": dict(opt=fnopt.sgd(0.2), every_k_schedule=4),
    "schedule_free": dict(base_optimizer=fnopt.sgd(0.05), learning_rate=0.05),
    "sgd": MOMENTUM,
    "trace": dict(decay=0.9),
}

PARAMS = {
    "kernel": np.float32(np.random.default_rng(1).normal(size=(8, 24))),
    "scale": np.float32(0.7),
}


def make(name, dtype):
    """The factory's transformation with the field stored so; the learning rate is 0.05."""
    factory = factories(fnopt)[name]
    usual = {"learning_rate": 0.05} if "learning_rate" in factory.kinds else {}
    return factory(**GIVEN.get(name, usual) | {MARKED[name][0]: dtype})


def field_of(name, state):
    """The field of a state that stores it."""
    return fnopt.tree_get(fnopt.find(state, StoreState).inner, MARKED[name][1])


def loss(params):
    squares = (jnp.sum(jnp.abs(p - 2) ** 2) / 4 for p in jax.tree.leaves(params))
    return sum(square.astype(jnp.float32) for square in squares)


def extras(name):
    return dict(obj_fn=loss, key=jax.random.key(0)) if "sophia" in name else {}


def noise(seed, steps):
    """As much noise as the gradients of the loss have size, for each of the steps."""
    rng = np.random.default_rng(seed)
    return {k: np.float32(rng.normal(size=(steps, *p.shape))) for k, p in PARAMS.items()}


def distance(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return np.sqrt(sum(np.sum((np.asarray(x) - np.asarray(y)) ** 2) for x, y in pairs))


OF_MATRICES = {"muon", "normuon", "adamuon", "mars_muon", "muon_clip"}


def dtypes(tree):
    return [x.dtype for x in jax.tree.leaves(tree)]


def test_the_arguments_of_optax_are_there():
    words = {word for word, _ in MARKED.values()}
    assert words == {"mu_dtype", "accumulator_dtype", "dtype_momentum", "state_dtype"}
    assert len(MARKED) > 26


@pytest.mark.parametrize("name", MARKED)
def test_one_field_is_narrow(name):
    dtypes_given = (None, jnp.float32, "float64", jnp.bfloat16)
    states = [jax.eval_shape(make(name, d).init, PARAMS) for d in dtypes_given]
    assert not any(jnp.bfloat16 in dtypes(state) for state in states[:3])
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[2])
    narrow = dtypes(field_of(name, states[3]))  # Muon's is of the matrix alone
    assert set(narrow) == {jnp.dtype(jnp.bfloat16)}
    assert dtypes(states[3]).count(jnp.bfloat16) == len(narrow) == 2 - (name in OF_MATRICES)


@pytest.mark.parametrize("name", MARKED)
def test_a_short_run_is_that_of_float32_and_traced_once(name):
    optimizers = [make(name, dtype) for dtype in (None, "bfloat16", "int8")]
    is_whole = name == "MultiSteps" or "learning_rate" in factories(fnopt)[name].kinds
    rate = 1.0 if is_whole else -0.05
    traces = []

    @jax.jit
    def run(carry, noises):
        traces.append(name)

        def advance(optimizer, params, state, noise):
            gradients = jax.tree.map(lambda p, n: (p - 2) / 2 + n, params, noise)
            updates, state = optimizer.update(gradients, state, params, **extras(name))
            return fnopt.apply_updates(params, jax.tree.map(lambda u: rate * u, updates)), state

        def step(carry, noise):
            return [advance(o, *c, noise) for o, c in zip(optimizers, carry)], None

        return jax.lax.scan(step, carry, noises)[0]

    params = jax.tree.map(jnp.asarray, PARAMS)
    carry = [(params, optimizer.init(params)) for optimizer in optimizers]
    for seed in (6, 7):
        carry = run(carry, noise(seed, 10))
    assert traces == [name]
    full, bfloat16, int8 = (params for params, _ in carry)
    way = distance(full, PARAMS)
    assert distance(int8, full) > 0
    assert distance(bfloat16, full) < 0.03 * way
    assert distance(int8, full) < 0.1 * way


def test_a_slow_average_in_bfloat16_decays():
    """Law L2: every entry ends within 5% of the float32 run."""
    updates = jnp.concatenate([jnp.ones(1000), jnp.full(3000, 0.01)])
    ends = []
    for dtype in (None, jnp.bfloat16):
        rule, zeros = fnopt.ema(0.999, accumulator_dtype=dtype), jnp.zeros((16, 128))

        def step(state, u, rule=rule, zeros=zeros):
            return rule.update(zeros + u, state)[1], None

        state = jax.jit(lambda s, step=step: jax.lax.scan(step, s, updates)[0])(rule.init(zeros))
        ends.append(np.float32(fnopt.tree_get(state, "ema")))
    full, low = ends
    np.testing.assert_allclose(low, full, rtol=0.05)
    np.testing.assert_allclose(full, 0.0409, rtol=1e-2)


@pytest.mark.parametrize("name", MARKED)
def test_float64_and_complex_leaves_stay(name, x64):
    params = {
        "double": jnp.ones((2, 16), jnp.float64),
        "complex": jnp.ones((2, 16), jnp.complex64),
        "half": jnp.ones((2, 16), jnp.bfloat16),
    }
    wide = [jnp.dtype(d) for d in (jnp.complex64, jnp.float64)]
    for code, narrow in ((jnp.bfloat16, [jnp.bfloat16]), ("int8", [jnp.int8, jnp.float32])):
        optimizer = make(name, code)
        state = jax.eval_shape(optimizer.init, params)
        _, after = jax.eval_shape(
            lambda s, o=optimizer: o.update(params, s, params, **extras(name)), state
        )
        assert dtypes(field_of(name, state)) == wide + narrow
        assert dtypes(field_of(name, after)) == wide + narrow


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (fnopt.scale_by_adam(b1=0.0, mu_dtype="int8"), "mu"),
        (fnopt.nadamw(0.1, b1=0.0, mu_dtype="int8"), "mu"),
        (fnopt.scale_by_novograd(b1=0.0, mu_dtype="bfloat16"), "mu"),
        (fnopt.signum(0.1, 0.0, jnp.bfloat16), "mu"),
        (fnopt.trace(0.0, accumulator_dtype="int8"), "trace"),
        (fnopt.adafactor(0.1, dtype_momentum=jnp.bfloat16), "mu"),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_a_rule_that_keeps_no_such_field_stores_none(rule, field):
    state = jax.eval_shape(rule.init, PARAMS)
    assert fnopt.tree_get(state, field) is None
    _, new = jax.eval_shape(rule.update, PARAMS, state, PARAMS)
    assert dtypes(new) == dtypes(state)
    assert {jnp.dtype(d) for d in dtypes(state)} <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def test_gradient_descent_has_nothing_to_store():
    plain, narrow = (fnopt.sgd(0.1, accumulator_dtype=d).init(PARAMS) for d in (None, "int8"))
    assert jax.tree.structure(plain) == jax.tree.structure(narrow)


def test_the_slow_mean_of_ademamix_stays_wide():
    state = fnopt.ademamix(1e-3, mu_dtype=jnp.bfloat16).init(PARAMS)
    assert dtypes(fnopt.tree_get(state, "slow")) == [jnp.float32] * 2


def test_members_fields_of_the_name_stay_wide():
    inner = fnopt.MultiSteps(fnopt.sgd(0.1), 2)
    outer = fnopt.MultiSteps(inner, 2, accumulator_dtype="bfloat16")
    state = jax.eval_shape(outer.init, PARAMS)
    for _ in range(2):
        gathered = fnopt.find(state, StoreState).inner
        assert dtypes(gathered.gathered) == [jnp.bfloat16] * 2
        assert dtypes(gathered.inner.gathered) == [jnp.float32] * 2
        _, state = jax.eval_shape(outer.update, PARAMS, state, PARAMS)


def test_store_leaves_what_an_argument_has_stored():
    optimizer = fnopt.store(fnopt.adam(0.1, mu_dtype="int8"), {"mu": "int4"}, min_size=0)
    state = optimizer.init(PARAMS)
    _, new = jax.jit(optimizer.update)(PARAMS, state, PARAMS)
    kept = fnopt.tree_get(new, "mu")["kernel"]
    assert (kept.codec, kept.codes.dtype, kept.scales.dtype) == ("int8", jnp.int8, jnp.float32)
    assert dtypes(new) == dtypes(state)
    np.testing.assert_allclose(codecs.decode(kept), 0.1 * PARAMS["kernel"], atol=5e-3)


def test_a_measure_is_averaged_in_bfloat16():
    measure = fnopt.measure_with_ema(fnopt.global_norm, 0.9, accumulator_dtype=jnp.bfloat16)
    monitor = fnopt.monitor({"norm": measure})
    state = monitor.init(PARAMS)
    for size in (1.0, 2.0, 3.0):
        gradients = {"w": jnp.full(1, size)}
        _, state = monitor.update(gradients, state)
    assert fnopt.tree_get(state, "ema").dtype == jnp.bfloat16
    average = (0.1 * 3 + 0.09 * 2 + 0.081) / (1 - 0.9**3)
    np.testing.assert_allclose(fnopt.tree_get(state, "norm"), average, rtol=0.02)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fnopt.adam(0.1, mu_dtype="int3"), ValueError, "adam: unknown codec 'int3'; there"),
        (lambda: fnopt.sgd(0.1, accumulator_dtype=jnp.int32), ValueError, "sgd: .* 'int32'; there"),
        (
            lambda: fnopt.trace(0.9, False, 3),
            TypeError,
            "trace: expected a codec",
        ),
        (
            lambda: fnopt.measure_with_ema(fnopt.global_norm, 0.9, True, "float12"),
            ValueError,
            "measure_with_ema: unknown codec 'float12'",
        ),
        (lambda: fnopt.store(fnopt.adam(0.1), {"mu": "float32"}), ValueError, "codec 'float32'"),
    ],
)
def test_a_wrong_dtype_is_named_at_once(call, error, words):
    with pytest.raises(error, match=words):
        call()
