import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnopt

PARAMS = {"encoder": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, "head": jnp.ones((3, 2))}
GRADIENTS = jax.tree.map(lambda p: 0.5 * p, PARAMS)
LABELS = {"encoder": "slow", "head": "fast"}


def updates_of(optimizer, params=PARAMS, gradients=GRADIENTS, steps=1):
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(gradients, state, params)
        params = fnopt.apply_updates(params, updates)
    return updates


def test_partition_agrees_with_optax(standard_numerics):
    ours = fnopt.partition({"slow": fnopt.sgd(0.1), "fast": fnopt.adam(0.2)}, LABELS)
    peer = optax.partition({"slow": optax.sgd(0.1), "fast": optax.adam(0.2)}, LABELS)
    mixed = fnopt.partition({"slow": optax.sgd(0.1), "fast": fnopt.adam(0.2)}, lambda p: LABELS)
    wanted = updates_of(peer, steps=3)
    for optimizer in (ours, mixed):
        got = updates_of(optimizer, steps=3)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, wanted)


def test_labels_are_checked_with_their_paths():
    optimizers = {"slow": fnopt.sgd(0.1), "fast": fnopt.adam(0.2)}
    with pytest.raises(ValueError, match="label 'other' at head; there are optimizers for 'slow'"):
        fnopt.partition(optimizers, {"encoder": "slow", "head": "other"}).init(PARAMS)
    everything = {"encoder": "slow", "head": "slow"}
    with pytest.raises(ValueError, match="no leaf has the label 'fast'.*'slow' at encoder/bias"):
        fnopt.partition(optimizers, everything).init(PARAMS)
    fnopt.partition(optimizers, everything, allow_unused=True).init(PARAMS)
    with pytest.raises(ValueError, match=r"only the labels has labels\['heads'\]"):
        fnopt.partition(optimizers, {"encoder": "slow", "heads": "fast"}).init(PARAMS)
    fnopt.partition(optimizers, lambda params: params).init({})


def test_labels_by_a_callable_under_its_own_keyword():
    class ByName:
        def __call__(self, params):
            return {name: LABELS[name] for name in params}

    optimizers = {"slow": fnopt.sgd(0.1), "fast": fnopt.adam(0.2)}
    got = updates_of(fnopt.partition(optimizers, labels_fn=ByName()))
    jax.tree.map(
        np.testing.assert_array_equal, got, updates_of(fnopt.partition(optimizers, LABELS))
    )
    for given in ({}, {"param_labels": LABELS, "labels_fn": ByName()}):
        with pytest.raises(ValueError, match="one of param_labels and labels_fn"):
            fnopt.partition(optimizers, **given)


def test_route_takes_the_first_condition_that_holds():
    routed = fnopt.route(
        {
            "head|embed": fnopt.sgd(1.0),
            fnopt.where(min_ndim=2, dtype=jnp.float32): fnopt.sgd(0.1),
            (lambda path, leaf: path.endswith("bias")): fnopt.sgd(0.01),
        }
    )
    updates = updates_of(routed)
    np.testing.assert_allclose(updates["head"], -0.5)
    np.testing.assert_allclose(updates["encoder"]["kernel"], -0.05)
    np.testing.assert_allclose(updates["encoder"]["bias"], -0.005)


def test_what_no_condition_holds_for_gets_the_default_is_frozen_or_passes():
    rules = {"head": fnopt.sgd(1.0)}
    assert not updates_of(fnopt.route(rules))["encoder"]["bias"].any()
    passed = updates_of(fnopt.route(rules, passthrough=True))
    np.testing.assert_array_equal(passed["encoder"]["bias"], 0.5)
    default = updates_of(fnopt.route(rules, default=fnopt.sgd(0.1)))
    np.testing.assert_allclose(default["encoder"]["bias"], -0.05)


@pytest.mark.parametrize(
    ("condition", "paths"),
    [
        (fnopt.where(ndim=1), ["encoder/bias"]),
        (fnopt.where(max_ndim=1), ["encoder/bias"]),
        (fnopt.where(min_size=7), ["encoder/kernel"]),
        (fnopt.where(max_size=6), ["encoder/bias", "head"]),
        (fnopt.where("encoder", min_ndim=2), ["encoder/kernel"]),
    ],
    ids=repr,
)
def test_where(condition, paths):
    updates = updates_of(fnopt.route({condition: fnopt.sgd(1.0)}))
    moved = [name for name, u in fnopt.named_arrays(updates).items() if u.any()]
    assert moved == paths
    assert eval(repr(condition), {"where": fnopt.where}) == condition


def test_conditions_are_checked_with_their_paths():
    with pytest.raises(ValueError, match="'haed' holds for no leaf; the paths are encoder/bias"):
        fnopt.route({"haed": fnopt.sgd(1.0)}).init(PARAMS)
    shadowed = {"encoder": fnopt.sgd(1.0), "encoder/bias": fnopt.sgd(0.1)}
    with pytest.raises(ValueError, match="earlier conditions have every leaf that 'encoder/bias'"):
        fnopt.route(shadowed).init(PARAMS)
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        fnopt.route({"(": fnopt.sgd(1.0)})
    with pytest.raises(TypeError, match="a condition is a regular expression"):
        fnopt.route({3: fnopt.sgd(1.0)})
    with pytest.raises(ValueError, match="read the same"):
        fnopt.route({"default": fnopt.sgd(1.0)})


def test_the_summary_prints_the_routing():
    routed = fnopt.route({"head": fnopt.adamw(1e-3)}, default=fnopt.lion(1e-4))
    rows = {row.path: row.rule for row in fnopt.summary(routed, PARAMS).rows}
    assert rows["['head']"] == "head: adamw"
    assert rows["['encoder']['bias']"] == "default: lion"
    frozen = fnopt.chain(fnopt.clip(1.0), fnopt.route({"head": fnopt.adam(1e-3)}))
    rows = {row.path: row.rule for row in fnopt.summary(frozen, PARAMS).rows}
    assert rows["['encoder']['bias']"] == "chain(clip, frozen)"
    assert rows["['head']"] == "chain(clip, head: adam)"


def clipped(max_norm):
    return fnopt.chain(fnopt.clip_by_global_norm(max_norm), fnopt.sgd(1.0))


@pytest.mark.parametrize(
    ("one", "whole"),
    [
        (clipped(0.1), clipped(0.1)),
        (fnopt.prodigy(), fnopt.prodigy()),
        (fnopt.dowg(), fnopt.dowg()),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_reductions_over_the_whole_tree_are_shared_on_request(one, whole):
    optimizers = {"slow": one, "fast": one}
    steep = {**GRADIENTS, "head": -20 * GRADIENTS["head"]}
    wanted = updates_of(whole, gradients=steep, steps=6)
    sharing = fnopt.partition(optimizers, LABELS, shared=True)
    shared = updates_of(sharing, gradients=steep, steps=6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), shared, wanted)
    apart = updates_of(fnopt.partition(optimizers, LABELS), gradients=steep, steps=6)
    pairs = zip(jax.tree.leaves(apart), jax.tree.leaves(wanted))
    assert not all(np.allclose(a, b, rtol=1e-3, atol=0) for a, b in pairs)


def test_a_member_without_reductions_shares_nothing():
    mixed = fnopt.partition({"slow": fnopt.adam(0.1), "fast": clipped(0.1)}, LABELS, shared=True)
    apart = fnopt.partition({"slow": fnopt.adam(0.1), "fast": clipped(0.1)}, LABELS)
    jax.tree.map(np.testing.assert_array_equal, updates_of(mixed), updates_of(apart))


def test_stateless_optimizers_leave_no_trace():
    state = fnopt.route({"head": fnopt.sign_sgd(1.0)}, default=fnopt.scale(-1.0)).init(PARAMS)
    assert list(state.inner) == ["head"]


def test_ends_of_a_size_belong_to_it():
    leaf = np.ones((2, 3), np.float32)
    assert fnopt.where(min_size=6, max_size=6)("w", leaf)
    assert not fnopt.where(min_size=7)("w", leaf)
    assert not fnopt.where(max_size=5)("w", leaf)
    assert fnopt.where(min_ndim=2, max_ndim=2)("w", leaf)
