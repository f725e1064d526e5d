"""Where leaves are in parts: what is drawn, sliced or skipped is that of whole leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import fnopt
from fnopt import mesh_axes
from fnopt.testing.laws.subject import differences

STEPS, BATCH = 20, 3
SHAPES = {"kernel": (24, 4), "wide": (8, 6), "bias": (40,), "gain": ()}
PLACES = {name: jax.P("data") if shape else jax.P() for name, shape in SHAPES.items()}
EACH = {name: jax.P(None, *place) for name, place in PLACES.items()}


def numbers(seed, *leading):
    rng = np.random.default_rng(seed)
    return {name: np.float32(rng.normal(size=(*leading, *shape))) for name, shape in SHAPES.items()}


def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def in_parts(f, places, out=PLACES, **how):
    return jax.jit(jax.shard_map(f, mesh=mesh(), in_specs=places, out_specs=out, **how))


def trained(optimizer, params, gradients, state=None):
    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (fnopt.apply_updates(params, updates), state), None

    state = optimizer.init(params) if state is None else state
    return jax.lax.scan(step, (params, state), gradients)[0]


# Of the state


@pytest.mark.parametrize("block", [5, 12, 128])
def test_a_stored_state_is_that_of_one_device(block):
    """Handed in and out as the state law splits it: the same codes, and the same scales, also
    where the parts of a vector cut its blocks."""
    make = functools.partial(fnopt.adamw_8bit, 0.01, min_size=48, block=block)
    params, gradients = numbers(0), numbers(1, STEPS)
    _, state = jax.eval_shape(lambda *ts: trained(make(), *ts), params, gradients)
    assert isinstance(fnopt.tree_get(state, "mu")["wide"], fnopt.codecs.Encoded)
    assert not isinstance(fnopt.tree_get(state, "mu")["bias"], fnopt.codecs.Encoded)

    make = functools.partial(make, min_size=0)
    wanted = jax.jit(lambda *ts: trained(make(), *ts))(params, gradients)
    on_mesh = jax.tree.map(lambda s: NamedSharding(mesh(), s), PLACES)
    split = jax.device_put(params, on_mesh)
    specs = jax.tree.map(lambda s: s.spec, fnopt.state_shardings(make(), split))
    run = in_parts(
        lambda p, g, s: trained(make(axis_name="data"), p, g, s),
        (PLACES, EACH, specs),
        (PLACES, specs),
    )
    got = run(params, gradients, jax.jit(make().init)(split))
    assert list(differences(got, wanted)) == []
    for one, two in zip(jax.tree.leaves(got[1]), jax.tree.leaves(wanted[1])):
        assert one.shape == two.shape
        if one.dtype == jnp.int8:
            np.testing.assert_array_equal(one, two)


def test_a_mean_in_codes_is_that_of_one_device():
    """By `mu_dtype`, of a rule that is told of parts."""
    make = functools.partial(fnopt.adafactor, 0.01, 2, momentum=0.9, dtype_momentum="int8")
    params, gradients = numbers(0), numbers(1, STEPS)
    wanted, _ = jax.jit(lambda *ts: trained(make(), *ts))(params, gradients)
    run = in_parts(lambda *ts: trained(make(axis_name="data"), *ts)[0], (PLACES, EACH))
    assert list(differences(run(params, gradients), wanted)) == []


SLICES = [(2, True), (3, False), (8, False), (11, True)]
# whether types tell of parts does not change which entries they are
REST = [pytest.param(n, not checked, marks=pytest.mark.sweep) for n, checked in SLICES]


@pytest.mark.parametrize(("slice_p", "checked"), SLICES + REST)
def test_entries_that_prodigy_looks_at_are_those_of_one_device(slice_p, checked):
    make = functools.partial(fnopt.prodigy, estim_lr0=1e-3, slice_p=slice_p)
    names = [name for name in SHAPES if checked or SHAPES[name]]
    params, gradients, places, each = (
        {name: t[name] for name in names} for t in (numbers(0), numbers(1, STEPS), PLACES, EACH)
    )
    wanted, state = jax.jit(lambda *ts: trained(make(), *ts))(params, gradients)
    assert fnopt.tree_get(state, "start")["wide"].size < params["wide"].size

    def local(*ts):
        return trained(make(axis_name="data"), *ts)[0]

    run = in_parts(local, (places, each), places, check_vma=checked)
    assert list(differences(run(params, gradients), wanted)) == []


# Of draws


def private(gradients):
    """Gradients of single examples, some shorter than the bound and some longer."""
    sizes = jnp.linspace(0.01, 0.2, BATCH)
    spread = lambda g: g * sizes.reshape(1, -1, *[1] * (g.ndim - 2))
    return jax.tree.map(spread, gradients)


@pytest.mark.parametrize("checked", [True, False])
def test_private_steps_are_those_of_one_device(checked):
    names = [name for name in SHAPES if checked or SHAPES[name]]
    params, places = ({name: t[name] for name in names} for t in (numbers(0), PLACES))
    gradients = jax.jit(private)({name: numbers(1, STEPS, BATCH)[name] for name in names})
    each = {name: jax.P(None, None, *place) for name, place in places.items()}
    make = functools.partial(fnopt.dpsgd, 0.1, 1.0, 0.5, 0, momentum=0.9)
    wanted, _ = jax.jit(lambda *ts: trained(make(), *ts))(params, gradients)

    def local(*ts):
        return trained(make(axis_name="data"), *ts)[0]

    run = in_parts(local, (places, each), places, check_vma=checked)
    assert list(differences(run(params, gradients), wanted)) == []


@pytest.mark.parametrize("uniform", [True, False])
def test_clipped_sums_by_layers_are_those_of_one_device(uniform):
    gradients = jax.jit(private)(numbers(1, 1, BATCH))
    gradients = jax.tree.map(lambda g: np.asarray(g)[0], gradients)
    clip = functools.partial(
        fnopt.per_example_layer_norm_clip, global_l2_norm_clip=1.0, uniform=uniform
    )
    run = in_parts(functools.partial(clip, axis_name="data"), (EACH,), (PLACES, jax.P()))
    got, wanted = run(gradients), jax.jit(clip)(gradients)
    assert list(differences(got, wanted)) == []
    assert got[1] == wanted[1]
    assert any(0 < n < BATCH for n in wanted[1].values())


def loss(params, weights, total=lambda x: x):
    """A sum over entries and the square of another one, which couples all of them."""
    own = [jnp.sum(w * p**4) for w, p in zip(jax.tree.leaves(weights), jax.tree.leaves(params))]
    along = [jnp.sum(w * p) for w, p in zip(jax.tree.leaves(weights), jax.tree.leaves(params))]
    return total(own) + total(along) ** 2


def over_parts(terms):
    """The sum of the leaves' terms, of which the one of the scalar is whole on each device."""
    axes = [mesh_axes.split_axes(x, "data") for x in terms]
    return of_one([mesh_axes.across(jax.lax.psum, x, names) for x, names in zip(terms, axes)])


def of_one(terms):
    return sum(terms[1:], terms[0])


def test_estimates_of_a_diagonal_are_those_of_one_device():
    params = numbers(0)
    weights = numbers(5)

    @jax.jit
    def of_one_device(params, weights):
        value = lambda p: loss(p, weights, of_one)
        return fnopt.hutchinson(value, params, jax.random.key(1))

    wanted = of_one_device(params, weights)

    def local(params, weights):
        value = lambda p: loss(p, weights, over_parts)
        rule = fnopt.hutchinson_estimator_diag_hessian(axis_name="data")
        probe = jax.random.key(1)
        diagonal, _ = rule.update(params, rule.init(params), params, obj_fn=value, key=probe)
        return diagonal

    got = in_parts(local, (PLACES, PLACES))(params, weights)
    assert list(differences(got, wanted)) == []


@pytest.mark.parametrize("place", [jax.P(), jax.P("data")])
def test_labels_of_a_batch_in_parts_are_those_of_one_device(place):
    """Of params that every device has whole, and of params in parts, gathered for the logits."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(32, 16)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(16, 10)), jnp.float32)

    def diagonal(w, x, rule, gather=lambda w: w):
        words = {"logits_fn": lambda w: x @ gather(w), "key": jax.random.key(3)}
        return rule.update(w, rule.init(w), w, **words)[0]

    estimator = fnopt.gauss_newton_bartlett_estimator_diag_hessian
    wanted = jax.jit(lambda w, x: diagonal(w, x, estimator()))(w, x)

    def local(w, x):
        gather = lambda w: jax.lax.all_gather(w, "data", tiled=True) if len(place) else w
        return diagonal(w, x, estimator(batch_axis_name="data"), gather)

    got = in_parts(local, (place, jax.P("data")), place)(w, x)
    assert list(differences(got, wanted)) == []


def test_params_are_rounded_as_on_one_device():
    params = jax.tree.map(lambda p: np.asarray(p, jnp.bfloat16), numbers(0))
    updates = jax.tree.map(lambda u: np.float32(1e-3) * u, numbers(1))
    rounded = functools.partial(fnopt.apply_updates, rounding="stochastic", key=jax.random.key(0))
    run = in_parts(functools.partial(rounded, axis_name="data"), (PLACES, PLACES))
    got, wanted = run(params, updates), jax.jit(rounded)(params, updates)
    assert all(np.array_equal(got[name], wanted[name]) for name in SHAPES)
    apart = in_parts(rounded, (PLACES, PLACES))(params, updates)
    assert not np.array_equal(apart["kernel"], wanted["kernel"])


# Of decisions


SKIPS = {
    "not_finite": fnopt.skip_not_finite,
    "large": functools.partial(fnopt.skip_large_updates, max_squared_norm=30.0),
}


@pytest.mark.parametrize("name", SKIPS)
def test_all_devices_skip_a_step_or_none(name):
    """One entry of one part is too large, or infinite, in every third micro-batch."""
    params, gradients = numbers(0), jax.tree.map(lambda g: np.float32(0.1) * g, numbers(1, STEPS))
    gradients["kernel"][::3, 17, 1] = np.inf if name == "not_finite" else 10.0

    def make(**kwargs):
        skip = functools.partial(SKIPS[name], **kwargs)
        return fnopt.MultiSteps(fnopt.adam(0.01), 2, should_skip_update_fn=skip)

    wanted, state = jax.jit(lambda *ts: trained(make(), *ts))(params, gradients)
    assert fnopt.step_count(state) == (STEPS - 7) // 2
    run = in_parts(lambda *ts: trained(make(axis_name="data"), *ts)[0], (PLACES, EACH))
    assert list(differences(run(params, gradients), wanted)) == []


# Without `axis_name`


@pytest.mark.parametrize("make", [fnopt.apollo, fnopt.galore], ids=lambda f: f.__name__)
def test_stacks_of_matrices_in_parts_are_projected_as_on_one_device(make):
    """Each device has whole matrices; vectors are stepped entry by entry."""
    words = {"rank": 2, "update_proj_gap": 5} | ({"key": 0} if make is fnopt.apollo else {})
    places = {"stack": jax.P("data"), "bias": jax.P("data")}
    each = {name: jax.P(None, "data") for name in places}
    rng = np.random.default_rng(0)

    def stacked(*leading):
        shapes = {"stack": (8, 6, 4), "bias": (16,)}
        return {
            name: jnp.asarray(rng.normal(size=(*leading, *shape)), jnp.float32)
            for name, shape in shapes.items()
        }

    params, gradients = stacked(), stacked(STEPS)
    wanted, _ = jax.jit(lambda *ts: trained(make(0.01, **words), *ts))(params, gradients)
    run = in_parts(lambda *ts: trained(make(0.01, **words), *ts)[0], (places, each), places)
    assert list(differences(run(params, gradients), wanted)) == []
