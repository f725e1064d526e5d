"""The state lies in the host's memory, and the run is the same. A CPU has both memories too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import fnopt


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(
    "optimizer",
    [fnopt.adamw(0.1), fnopt.zero(fnopt.adamw_8bit(0.1, min_size=0)), fnopt.muon(0.1)],
    ids=lambda o: o.factory.__name__,
)
def test_the_run_is_the_same(optimizer, kind):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    shapes = {"w": (16, 8), "b": (16,)}

    def values(seed):
        rng = np.random.default_rng(seed)
        whole = NamedSharding(mesh, jax.P())
        return {
            k: jax.device_put(jnp.float32(rng.normal(size=s)), whole) for k, s in shapes.items()
        }

    def run(optimizer, memory_kind):
        params = values(0)
        places = fnopt.state_shardings(optimizer, params, memory_kind=memory_kind)
        state = fnopt.init_sharded(optimizer, params, memory_kind=memory_kind)

        def step(params, state, gradients):
            updates, state = optimizer.update(gradients, state, params)
            return fnopt.apply_updates(params, updates), state

        step = jax.jit(step)
        for i in range(5):
            params, state = step(params, state, values(1 + i))
            for x, place in zip(jax.tree.leaves(state), jax.tree.leaves(places)):
                assert x.sharding.memory_kind == place.memory_kind
                assert x.sharding.is_equivalent_to(place, x.ndim)
        return params, step._cache_size(), {p.memory_kind for p in jax.tree.leaves(places)}

    wanted, _, kinds = run(optimizer, None)
    assert kinds == {"device"} or kinds == {None}
    got, _, kinds = run(fnopt.offload(optimizer), "pinned_host")
    assert "pinned_host" in kinds
    for k in shapes:
        np.testing.assert_array_equal(got[k], wanted[k])


def test_an_unknown_memory_is_named():
    mesh = jax.make_mesh((8,), ("data",))
    params = {"w": jax.device_put(jnp.ones(8), NamedSharding(mesh, jax.P()))}
    with pytest.raises(ValueError, match="tape"):
        fnopt.state_shardings(fnopt.adam(0.1), params, memory_kind="tape")


def test_scalars_stay_on_the_device():
    mesh = jax.make_mesh((8,), ("data",))
    params = {"w": jax.device_put(jnp.ones(8), NamedSharding(mesh, jax.P()))}
    places = fnopt.state_shardings(fnopt.adam(0.1), params, memory_kind="pinned_host")
    shapes = jax.eval_shape(fnopt.adam(0.1).init, params)
    for x, place in zip(jax.tree.leaves(shapes), jax.tree.leaves(places)):
        assert (place.memory_kind == "pinned_host") == bool(x.ndim)
