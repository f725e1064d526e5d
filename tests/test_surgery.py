import jax
import numpy as np
import pytest

import fnopt
from fnopt.masks import meant

ones = lambda *shape: np.ones(shape, np.float32)
PARAMS = {"body": {"kernel": ones(4, 3), "bias": ones(3)}, "head": ones(3, 2)}


def trained(optimizer):
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(lambda p: 0.5 * p, params), state, params)
        return (fnopt.apply_updates(params, updates), state), None

    run = lambda params: jax.lax.scan(step, (params, optimizer.init(params)), length=3)[0]
    return jax.jit(run)(PARAMS)


def goes_on(optimizer, state, params):
    """The state is one that the optimizer accepts, without a change of types."""
    types = lambda s: jax.tree.map(lambda x: (x.shape, x.dtype), s)
    _, after = jax.eval_shape(optimizer.update, params, state, params)
    assert types(after) == types(state)


@pytest.mark.parametrize(
    "where",
    ["head", {"body": False, "head": True}, lambda p: {"body": False, "head": True}],
    ids=["expression", "mask", "function"],
)
def test_reset_of_some_leaves(where):
    optimizer = fnopt.chain(fnopt.clip(1.0), fnopt.adagrad(0.1))
    params, state = trained(optimizer)
    new = fnopt.reset(optimizer, state, params, where)
    sums = fnopt.tree_get(new, "sum_of_squares")
    np.testing.assert_array_equal(sums["head"], np.float32(0.1))
    np.testing.assert_array_equal(
        sums["body"]["kernel"], fnopt.tree_get(state, "sum_of_squares")["body"]["kernel"]
    )
    assert fnopt.step_count(new) == 3
    goes_on(optimizer, new, params)


def test_reset_of_everything_and_through_routes():
    optimizer = fnopt.route(
        {"head": fnopt.adam(0.1)}, default=fnopt.lookahead(fnopt.sgd(0.1), 2, 0.5)
    )
    params, state = trained(optimizer)
    again = fnopt.reset(optimizer, state, params)
    assert all(int(x) == 0 for n, x in fnopt.named_arrays(again).items() if n.endswith("count"))
    part = fnopt.reset(optimizer, state, params, "body")
    slow = fnopt.tree_get(part, "slow")["body"]["bias"]
    np.testing.assert_array_equal(slow, params["body"]["bias"])
    assert np.any(fnopt.tree_get(part, "mu")["head"])
    goes_on(optimizer, part, params)


def test_mistakes_of_reset_are_named():
    optimizer = fnopt.adam(0.1)
    params, state = trained(optimizer)
    with pytest.raises(ValueError, match="'haed' is found in no path; the paths are body/bias"):
        fnopt.reset(optimizer, state, params, "haed")
    with pytest.raises(ValueError, match="same structure"):
        fnopt.reset(fnopt.lion(0.1), state, params)
    with pytest.raises(ValueError, match="the mask has mask"):
        fnopt.reset(optimizer, state, params, {"tail": True})


def test_an_optimizer_is_replaced_in_a_route():
    old = fnopt.route({"head": fnopt.adam(0.1)}, default=fnopt.sgd(0.1, momentum=0.9))
    new = fnopt.route({"head": fnopt.lion(0.1)}, default=fnopt.sgd(0.1, momentum=0.9))
    params, state = trained(old)
    moved = fnopt.carry_over(state, jax.jit(new.init)(params))
    before, after = fnopt.named_arrays(state), fnopt.named_arrays(moved)
    kept = [n for n in after if n.startswith("inner/default")]
    assert kept
    for name in kept:
        np.testing.assert_array_equal(after[name], before[name])
    assert not any("scale_by_adam" in n for n in after)
    assert not after["inner/head/scale_by_lion/mu/head"].any()
    goes_on(new, moved, params)


def test_mistakes_of_carry_over_are_named():
    optimizer = fnopt.adam(0.1)
    _, state = trained(optimizer)
    other = {**PARAMS, "head": ones(5, 2)}
    with pytest.raises(ValueError, match=r"mu/head is float32\[3,2\], expected float32\[5,2\]"):
        fnopt.carry_over(state, optimizer.init(other))
    with pytest.raises(ValueError, match="share no name"):
        fnopt.carry_over(fnopt.trace(0.9).init(PARAMS), fnopt.scale_by_lion().init(PARAMS))


@pytest.mark.parametrize("shape", [(5, 2), (2, 2), (3, 4), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "optimizer",
    [fnopt.adamw(0.1), fnopt.adafactor(0.1, min_dim_size_to_factor=1), fnopt.adagrad(0.1)],
    ids=lambda o: o.name,
)
def test_a_leaf_grows_and_shrinks_with_its_state(optimizer, shape):
    params, state = trained(optimizer)
    new_params = {**params, "head": np.full(shape, 2.0, np.float32)}
    new = fnopt.resize(optimizer, state, params, new_params)
    fresh = jax.jit(optimizer.init)(new_params)
    for name, x in fnopt.named_arrays(new).items():
        old, start = fnopt.named_arrays(state)[name], fnopt.named_arrays(fresh)[name]
        assert x.shape == start.shape
        common = tuple(slice(0, min(m, n)) for m, n in zip(x.shape, old.shape))
        np.testing.assert_array_equal(x[common], old[common])
        added = np.ones(x.shape, bool)
        added[common] = False
        np.testing.assert_array_equal(np.asarray(x)[added], np.asarray(start)[added])
    goes_on(optimizer, new, new_params)


def test_mistakes_of_resize_are_named():
    optimizer = fnopt.adam(0.1)
    params, state = trained(optimizer)
    with pytest.raises(ValueError, match="old params and new params must have the same structure"):
        fnopt.resize(optimizer, state, params, {"head": params["head"]})
    with pytest.raises(ValueError, match=r"mu/head is float32\[3,2\], and for the new params"):
        fnopt.resize(optimizer, state, params, {**params, "head": ones(3, 2, 2)})
    flat = fnopt.flatten(fnopt.adam(0.1))
    with pytest.raises(ValueError, match=r"mu/float32 is float32\[21\]"):
        fnopt.resize(flat, flat.init(params), params, {**params, "head": ones(4, 2)})
    low_rank = fnopt.galore(0.1, rank=2)
    square = {"w": ones(6, 4)}
    with pytest.raises(ValueError, match="state that cannot be cut"):
        fnopt.resize(low_rank, low_rank.init(square), square, {"w": ones(6, 9)})


def test_an_expression_is_found_anywhere_in_a_path():
    params = {"layer": {"kernel": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}}
    found = meant("reset", "kernel", params)
    assert {jax.tree_util.keystr(path) for path in found} == {"['layer']['kernel']"}


def test_what_is_carried_over_takes_the_fresh_dtypes():
    params = {"w": np.ones(4, np.float32)}
    old = fnopt.adam(0.1, mu_dtype="bfloat16").init(params)
    fresh = fnopt.adam(0.1, mu_dtype="float16").init(params)
    found = jax.tree.leaves(fnopt.carry_over(old, fresh))
    assert [x.dtype for x in found] == [x.dtype for x in jax.tree.leaves(fresh)]
    assert np.float16 in [x.dtype for x in found]
