import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import fnopt
from fnopt.testing import check_masked

PARAMS = {"encoder": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, "head": jnp.ones((3, 2))}
GRADIENTS = jax.tree.map(lambda p: 0.5 * p, PARAMS)
MASK = {"encoder": False, "head": True}


def updates_of(optimizer, params=PARAMS, gradients=GRADIENTS):
    return optimizer.update(gradients, optimizer.init(params), params)[0]


@pytest.mark.parametrize("rule", [fnopt.adam(0.1), fnopt.lion(0.1), optax.adam(0.1)])
def test_masked_out_leaves_are_frozen_and_have_no_state(rule, standard_numerics):
    masked = fnopt.masked(rule, MASK)
    updates = updates_of(masked)
    assert not updates["encoder"]["kernel"].any()
    assert not updates["encoder"]["bias"].any()
    np.testing.assert_allclose(updates["head"], updates_of(rule)["head"], rtol=1e-6)
    assert not [name for name in fnopt.named_arrays(masked.init(PARAMS)) if "encoder" in name]


def test_the_law_of_masks():
    check_masked(lambda mask: fnopt.masked(fnopt.adam(1e-2), mask))
    check_masked(
        lambda mask: fnopt.selective_transform(
            fnopt.adam(1e-2), freeze_mask=jax.tree.map(lambda x: not x, mask)
        )
    )


def test_passthrough_is_asked_for_by_name():
    decay = fnopt.masked(fnopt.add_decayed_weights(0.1), MASK, passthrough=True)
    updates = updates_of(decay)
    np.testing.assert_array_equal(updates["encoder"]["bias"], GRADIENTS["encoder"]["bias"])
    np.testing.assert_allclose(updates["head"], 0.6)
    peer = optax.masked(
        optax.add_decayed_weights(0.1), MASK | {"encoder": {"kernel": False, "bias": False}}
    )
    jax.tree.map(np.testing.assert_allclose, updates, updates_of(peer))


def matrices(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


class Matrices:
    """A callable that is no function."""

    def __call__(self, params):
        return matrices(params)


@pytest.mark.parametrize(
    "given",
    [
        {"mask": matrices},
        {"mask": functools.partial(jax.tree.map, lambda p: p.ndim > 1)},
        {"mask_fn": Matrices()},
        {"mask": {"encoder": {"kernel": np.True_, "bias": np.False_}, "head": jnp.array(True)}},
    ],
    ids=["function", "partial", "callable", "arrays"],
)
def test_masks_in_every_form(given):
    updates = updates_of(fnopt.masked(fnopt.sgd(1.0), **given))
    assert updates["encoder"]["kernel"].all()
    assert updates["head"].all()
    assert not updates["encoder"]["bias"].any()


def test_a_callable_module_is_a_tree_and_is_not_called():
    module = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    mask = jax.tree.map(lambda _: True, eqx.filter(module, eqx.is_array))
    mask = eqx.tree_at(lambda m: m.layers[0], mask, jax.tree.map(lambda _: False, mask.layers[0]))
    params = eqx.filter(module, eqx.is_array)
    gradients = jax.tree.map(jnp.ones_like, params)
    optimizer = fnopt.masked(fnopt.adam(0.1), mask)
    updates = optimizer.update(gradients, optimizer.init(params), params)[0]
    assert not updates.layers[0].weight.any()
    assert updates.layers[1].weight.all()


def test_freeze_and_selective_transform():
    frozen = {"encoder": True, "head": False}
    updates = updates_of(fnopt.chain(fnopt.sgd(1.0), fnopt.freeze(frozen)))
    selected = updates_of(fnopt.selective_transform(fnopt.sgd(1.0), freeze_mask=frozen))
    jax.tree.map(np.testing.assert_array_equal, updates, selected)
    assert not updates["encoder"]["kernel"].any()
    np.testing.assert_array_equal(updates["head"], -GRADIENTS["head"])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"only the mask has mask\['encoder'\]\['kernal'\]"):
        fnopt.masked(fnopt.sgd(1.0), {"encoder": {"kernal": True}, "head": True}).init(PARAMS)
    with pytest.raises(ValueError, match=r"only the tree of params has params\['head'\]"):
        fnopt.masked(fnopt.sgd(1.0), {"encoder": True}).init(PARAMS)
    with pytest.raises(TypeError, match="must be bools, .* got 'yes'"):
        fnopt.masked(fnopt.sgd(1.0), {"encoder": "yes", "head": True}).init(PARAMS)
    for given in ({}, {"mask": MASK, "mask_fn": matrices}):
        with pytest.raises(ValueError, match="one of mask and mask_fn"):
            fnopt.masked(fnopt.sgd(1.0), **given)
    with pytest.raises(TypeError, match="known when traced"):
        jax.jit(lambda on: fnopt.masked(fnopt.sgd(1.0), MASK | {"head": on}).init(PARAMS))(True)


@pytest.mark.parametrize("asked", [True, False])
def test_extra_arguments_with_the_params_structure(asked):
    @fnopt.gradient_transformation
    def scale_by_tree():
        def update(updates, state, *, tree):
            seen.append(jax.tree.structure(tree))
            return updates, state

        return lambda params: (), update

    seen = []
    optimizer = fnopt.masked(scale_by_tree(), MASK, mask_compatible_extra_args=asked)
    optimizer.update(GRADIENTS, optimizer.init(PARAMS), PARAMS, tree=PARAMS)
    chosen = {"encoder": {"bias": None, "kernel": None}, "head": 0}
    assert seen == [jax.tree.structure(chosen if asked else PARAMS)]


def test_summary_shows_what_went_where():
    text = str(
        fnopt.summary(fnopt.chain(fnopt.clip(1.0), fnopt.masked(fnopt.adam(0.1), MASK)), PARAMS)
    )
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "chain(clip, frozen)" in lines["['encoder']['bias']"]
    assert "chain(clip, adam)" in lines["['head']"]


def test_states_of_nnx_are_params_masks_and_labels():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    gradients = jax.tree.map(jnp.ones_like, params)
    mask = jax.tree.map(lambda p: p.ndim > 1, params)
    masked = fnopt.masked(fnopt.adam(0.1), mask)
    updates, _ = masked.update(gradients, masked.init(params), params)
    assert jnp.all(updates["kernel"][...] < 0)
    assert not updates["bias"][...].any()
    labels = jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "vector", params)
    split = fnopt.partition({"matrix": fnopt.sgd(1.0), "vector": fnopt.sgd(0.5)}, labels)
    updates, _ = split.update(gradients, split.init(params), params)
    assert float(updates["kernel"][...][0, 0]) == -1.0
    assert float(updates["bias"][...][0]) == -0.5
    routed = fnopt.route({"kernel": fnopt.sgd(1.0)})
    updates, _ = routed.update(gradients, routed.init(params), params)
    assert not updates["bias"][...].any()
