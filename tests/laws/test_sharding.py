"""Every factory's state, placed on a mesh as `state_shardings` says from shapes alone."""

import jax
import jax.numpy as jnp
import law_subjects as subjects
import numpy as np
import pytest
from jax.sharding import NamedSharding

import fnopt

SHAPES = {"w": (8, 16), "stack": (4, 8, 8), "b": (16,), "scale": ()}
SPECS = {"w": ("x", "y"), "stack": (None, "x", "y"), "b": ("y",), "scale": ()}


@pytest.mark.parametrize("name", subjects.SUBJECTS)
def test_every_factory_says_where_its_state_is(name):
    mesh = jax.make_mesh((2, 4), ("x", "y"))
    places = {k: NamedSharding(mesh, jax.P(*spec)) for k, spec in SPECS.items()}
    shapes = {
        k: jax.ShapeDtypeStruct(s, jnp.float32, sharding=places[k]) for k, s in SHAPES.items()
    }
    rng = np.random.default_rng(0)
    params = {
        k: jax.device_put(jnp.float32(rng.normal(size=s)), places[k]) for k, s in SHAPES.items()
    }
    optimizer = subjects.SUBJECTS[name]()
    wanted, state = fnopt.state_shardings(optimizer, shapes), optimizer.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(wanted)
    for (path, leaf), place in zip(
        jax.tree_util.tree_flatten_with_path(state)[0], jax.tree.leaves(wanted)
    ):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim), (path, leaf.sharding, place)
