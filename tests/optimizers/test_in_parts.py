"""Matrix optimizers whose leaves are in parts inside `shard_map`: as on one device."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import fnopt
from fnopt.testing.laws.subject import dead, differences, not_finite

STEPS = 20
SHAPES = {
    "wide": (8, 24),
    "tall": (16, 8),
    "stacked": (8, 4, 6),
    "window": (8, 2, 3, 4),
    "bias": (16,),
    "gain": (),
}
PLACES = {name: jax.P("data") if shape else jax.P() for name, shape in SHAPES.items()}
EACH = {name: jax.P(None, *place) for name, place in PLACES.items()}

OPTIMIZERS = {
    "adamuon": (fnopt.adamuon, {}),
    "dion": (fnopt.dion, {"rank_fraction": 0.5}),
    "mars_muon": (fnopt.mars_muon, {}),
    "muon": (fnopt.muon, {"weight_decay": 0.1}),
    "muon_clip": (fnopt.muon_clip, {}),
    "normuon": (fnopt.normuon, {}),
    "psgd_kron": (fnopt.psgd_kron, {"key": 0}),
    "scion": (fnopt.scion, {}),
    "shampoo": (fnopt.shampoo, {"update_every": 3, "block_size": 8}),
    "soap": (fnopt.soap, {"precondition_frequency": 3}),
}
TURNED = [
    ("muon", {"layout": "out_in"}),
    ("normuon", {"layout": "out_in"}),
    ("soap", {"layout": "out_in", "normalize": True}),
]
CASES = [(name, {}) for name in OPTIMIZERS] + TURNED
# the decompositions of each shape of matrix take a second of compilation: not of all at once
FEW = {
    "psgd_kron": ("wide", "stacked", "bias", "gain"),
    "shampoo": ("tall", "stacked", "bias", "gain"),
    "soap": ("tall", "stacked", "bias", "gain"),
    "soap layout normalize": ("wide", "window", "bias"),
}


def runs():
    """(name, more, leaves): all the leaves too of those that have a few else."""
    for name, more in CASES:
        words = " ".join([name, *more])
        yield pytest.param(name, more, FEW.get(words, tuple(SHAPES)), id=words)
        if words in FEW:
            yield pytest.param(
                name, more, tuple(SHAPES), id=f"{words} of all", marks=pytest.mark.sweep
            )


def numbers(seed, *leading, leaves=tuple(SHAPES)):
    rng = np.random.default_rng(seed)
    return {name: np.float32(rng.normal(size=(*leading, *SHAPES[name]))) for name in leaves}


def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def trained(optimizer, params, gradients):
    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (fnopt.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]


@pytest.mark.parametrize(("name", "more", "leaves"), [*runs()])
def test_steps_in_parts_are_those_of_whole_leaves(name, more, leaves):
    factory, kwargs = OPTIMIZERS[name]
    kwargs = kwargs | more
    params, gradients = numbers(0, leaves=leaves), numbers(1, STEPS, leaves=leaves)
    wanted = jax.jit(lambda *ts: trained(factory(0.01, **kwargs), *ts))(params, gradients)
    part = factory(0.01, **kwargs, axis_name="data")
    places, each = ({k: specs[k] for k in leaves} for specs in (PLACES, EACH))
    run = jax.shard_map(
        lambda *ts: trained(part, *ts), mesh=mesh(), in_specs=(places, each), out_specs=places
    )
    got = jax.jit(run)(params, gradients)
    assert list(differences(got, wanted)) == []
    assert list(not_finite(got)) == []
    assert not list(dead(jax.tree.map(np.subtract, got, params), params))


@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_where_types_do_not_tell_all_leaves_are_in_parts(name):
    """In `pmap`; a scalar then stays whole."""
    factory, kwargs = OPTIMIZERS[name]
    names = ("wide", "stacked", "bias")
    params, gradients = ({k: t[k] for k in names} for t in (numbers(0), numbers(1, STEPS)))
    wanted = jax.jit(lambda *ts: trained(factory(0.01, **kwargs), *ts))(params, gradients)
    part = factory(0.01, **kwargs, axis_name="data")
    cut = jax.tree.map(lambda p: p.reshape(4, -1, *p.shape[1:]), params)
    cuts = jax.tree.map(lambda g: g.reshape(STEPS, 4, -1, *g.shape[2:]), gradients)
    run = jax.pmap(lambda *ts: trained(part, *ts), axis_name="data", in_axes=(0, 1), out_axes=0)
    got = jax.tree.map(lambda x, p: np.reshape(x, p.shape), run(cut, cuts), params)
    assert list(differences(got, wanted)) == []


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_heads_are_clipped_in_parts(layout):
    """Of queries in parts, stacked layers in parts and a bias in parts; keys whole."""
    shapes = {"q_proj": (16, 16), "k_proj": (16, 16), "q_proj_bias": (16,), "layers": (8, 6, 8)}
    rng = np.random.default_rng(0)
    params = {k: np.float32(rng.normal(size=s)) for k, s in shapes.items()}
    params["q_layers"] = params.pop("layers")
    places = {name: jax.P("data") for name in params} | {"k_proj": jax.P()}
    words = {"query": "^q", "layout": layout}
    one = np.float32(rng.uniform(50, 400, 4))
    logits = {"q_layers": np.float32(rng.uniform(50, 400, (8, 2)))}
    logits |= {name: one for name in params if name != "q_layers"}
    wanted = jax.jit(lambda ps, s: fnopt.qk_clip(ps, s, **words))(params, logits)
    run = jax.shard_map(
        lambda ps, s: fnopt.qk_clip(ps, s, **words, axis_name="data"),
        mesh=mesh(),
        in_specs=(places, jax.P()),
        out_specs=places,
    )
    got = jax.jit(run)(params, logits)
    assert list(differences(got, wanted)) == []
    assert list(differences(got, params))
