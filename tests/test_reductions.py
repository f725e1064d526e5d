"""What reduces over leaves or inside one, inside `shard_map` and `pmap`: as on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import fnopt
from fnopt.testing.laws.subject import differences

STEPS = 20
SHAPES = {"one": (8, 8), "two": (8, 8), "wide": (8, 24), "bias": (16,), "gain": ()}
AXIS = jax.P("data")


def numbers(seed, *leading):
    """Multiples of 1/256, so that their sums over devices are exact in any order."""
    rng = np.random.default_rng(seed)

    def leaf(shape):
        return jnp.asarray(np.round(256 * rng.normal(size=(*leading, *shape))) / 256, jnp.float32)

    return {name: leaf(shape) for name, shape in SHAPES.items()}


def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def trained(optimizer, params, gradients, gradient_of=lambda g: g):
    """The params after as many steps as there are gradients, all one program."""

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient_of(gradient), state, params)
        return (fnopt.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]


# Params and state on every device, the gradients averaged


REDUCING = {
    "clip_by_global_norm": fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(0.01)),
    "lamb": fnopt.lamb(0.01, weight_decay=0.1),
    "lars": fnopt.lars(1.0, weight_decay=0.1),
    "prodigy": fnopt.prodigy(estim_lr0=1e-3),
    "dadapt_adamw": fnopt.dadapt_adamw(estim_lr0=1e-3),
    "adafactor": fnopt.adafactor(0.01, min_dim_size_to_factor=2, momentum=0.9),
    "adaptive_grad_clip": fnopt.chain(fnopt.adaptive_grad_clip(0.01), fnopt.sgd(0.1, 0.9)),
    "muon": fnopt.muon(0.01),
    "normuon": fnopt.normuon(0.01),
    "adamw_8bit": fnopt.adamw_8bit(0.01, min_size=0),
}


@pytest.mark.parametrize("name", REDUCING)
def test_data_parallel_steps_are_those_of_one_device(name):
    params, gradients = numbers(0), numbers(1, STEPS, 8)
    mean = jax.tree.map(lambda g: g.mean(1), gradients)
    wanted = jax.jit(lambda *trees: trained(REDUCING[name], *trees))(params, mean)

    def averaged(gradients):
        return jax.lax.pmean(gradients, "data")

    def in_shard_map(params, gradients):
        parts = jax.tree.map(lambda g: g[:, 0], gradients)
        return trained(REDUCING[name], params, parts, averaged)

    places = {"in_specs": (jax.P(), jax.P(None, "data")), "out_specs": jax.P()}
    run = jax.shard_map(in_shard_map, mesh=mesh(), **places)
    assert list(differences(jax.jit(run)(params, gradients), wanted)) == []

    def in_pmap(params, gradients):
        return trained(REDUCING[name], params, gradients, averaged)

    run = jax.pmap(in_pmap, axis_name="data", in_axes=(None, 1), out_axes=None)
    assert list(differences(run(params, gradients), wanted)) == []
