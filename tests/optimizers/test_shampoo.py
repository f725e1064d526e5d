import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_oracles import errors, stacked, trained

import fnopt
from fnopt.optimizers.shampoo import Factors, rooted, scale_by_shampoo, shampoo
from fnopt.testing.oracles import leafwise, trial

SHAPES = {"tall": (5, 3), "square": (4, 4), "stack": (2, 3, 4), "vector": (5,)}
NUMBERS = {
    name: None if len(shape) < 2 else fnopt.MatrixDimensionNumbers(len(shape) - 2, len(shape) - 1)
    for name, shape in SHAPES.items()
}


def power(a, exponent, eps):
    values, q = np.linalg.eigh(a)
    if values[-1] <= 0:
        return np.eye(len(a))
    return (q * (np.maximum(values, 0) + eps * values[-1]) ** exponent) @ q.T


def adam(theta, gradients, rate):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - rate * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        yield theta


def slices(length, size):
    parts = -(-length // size)
    long = -(-length // parts)
    return [slice(start, start + long) for start in range(0, length, long)]


def oracle(
    rate,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-6,
    weight_decay=0.0,
    grafting="adam",
    graft_b2=0.999,
    graft_eps=1e-8,
    update_every=10,
    start=None,
    block_size=1024,
    adam_rate=3e-4,
):
    b3 = b1 if b3 is None else b3
    start = update_every if start is None else start

    def block(gradients):
        """The steps of one block."""
        rows, columns = gradients[0].shape
        left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
        left_root, right_root = np.eye(rows), np.eye(columns)
        m, v = np.zeros((rows, columns)), np.zeros((rows, columns))
        weight = 1 if b2 == 1 else 1 - b2
        for t, g in enumerate(gradients, 1):
            left, right = b2 * left + weight * g @ g.T, b2 * right + weight * g.T @ g
            ahead = (b3 * m + (1 - b3) * g) / (1 - b3 * b1 ** (t - 1))
            m = b1 * m + (1 - b1) * g
            if t >= start and (t - start) % update_every == 0:
                correction = 1 if b2 == 1 else 1 - b2**t
                left_root = power(left / correction, -1 / 4, eps)
                right_root = power(right / correction, -1 / 4, eps)
            if grafting == "adagrad":
                v = v + g**2
            else:
                v = graft_b2 * v + (1 - graft_b2) * g**2
            square = v / (1 - graft_b2**t) if grafting == "adam" else v
            graft = ahead
            if grafting in ("adam", "rmsprop", "adagrad"):
                graft = ahead / (np.sqrt(square) + graft_eps)
            if t < start:
                yield graft
                continue
            p = left_root @ ahead @ right_root
            if grafting != "none":
                p = p * np.linalg.norm(graft) / max(np.linalg.norm(p), 1e-300)
            yield p

    def matrix(theta, gradients):
        places = [
            (i, j)
            for i in slices(theta.shape[0], block_size)
            for j in slices(theta.shape[1], block_size)
        ]
        runs = [block([g[place] for g in gradients]) for place in places]
        for _ in gradients:
            u = np.zeros_like(theta)
            for place, run in zip(places, runs):
                u[place] = next(run)
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    @leafwise
    def run(theta, gradients):
        if theta.ndim < 2:
            return adam(theta, gradients, adam_rate)
        if theta.ndim == 2:
            return matrix(theta, gradients)
        layers = [matrix(x, [g[i] for g in gradients]) for i, x in enumerate(theta)]
        return map(np.stack, zip(*layers))

    return run


SETTINGS = [
    dict(),
    dict(grafting="none", b2=1.0, update_every=1, eps=1e-3),
    dict(grafting="sgd", b1=0.5, b3=0.8, b2=0.9, update_every=3, start=5, weight_decay=0.1),
    dict(grafting="adagrad", b1=0.0, update_every=4, block_size=2, eps=1e-4),
    dict(grafting="rmsprop", graft_b2=0.9, graft_eps=1e-3, update_every=2, start=1, block_size=4),
]


def ours(rate, start=None, **setting):
    return shampoo(rate, start_preconditioning_step=start, dimension_numbers=NUMBERS, **setting)


# the settings' rules are the same in float64; all of a step's branches are in these two
IN_FLOAT32 = [
    pytest.param(setting, marks=[pytest.mark.sweep] * (i not in (2, 4)))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize("setting", IN_FLOAT32, ids=str)
def test_oracle_in_float32(setting):
    """Roots magnify the rounding of what the factors have not seen yet, at t = 1 most of it."""
    found = errors(ours(0.02, **setting), oracle(0.02, **setting), np.float32, SHAPES)
    assert max(found.values()) < (3e-4 if setting.get("start") == 1 else 1e-5), found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    found = errors(ours(0.02, **setting), oracle(0.02, **setting), np.float64, SHAPES)
    assert max(found.values()) < 1e-12, found


def final(optimizer, params, gradients):
    """The params after the steps."""
    moved = trained(optimizer)(params, stacked(gradients))
    return jax.tree.map(lambda x: np.asarray(x)[-1], moved)


def steps(rule, gradients):
    """The update at each step."""
    step = lambda state, g: rule.update(g, state)[::-1]
    run = lambda gs: jax.lax.scan(step, rule.init(gs[0]), gs)[1]
    return np.asarray(jax.jit(run)(gradients))


def drawn(shape, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def test_on_a_diagonal_problem_it_is_adagrad():
    """Of a diagonal G both factors are the sums of squares: G over two fourth roots of them."""
    rule = scale_by_shampoo(0.0, 1.0, eps=1e-12, grafting="none", update_every=1)
    adagrad = fnopt.scale_by_rss(0.0, 0.0)
    gradients = np.stack([np.diag(drawn((4,), seed)) for seed in range(5)])
    mine, theirs = (steps(method, gradients) for method in (rule, adagrad))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("grafting", "method"),
    [
        ("sgd", fnopt.ema(0.9)),
        ("adam", fnopt.scale_by_adam(0.9, 0.999, 1e-8)),
    ],
)
def test_a_step_is_as_long_as_the_grafted_methods(grafting, method):
    gradients = drawn((7, 4, 6))
    rule = scale_by_shampoo(grafting=grafting, update_every=2)
    for t, (mine, theirs) in enumerate(zip(steps(rule, gradients), steps(method, gradients)), 1):
        np.testing.assert_allclose(np.linalg.norm(mine), np.linalg.norm(theirs), rtol=1e-5)
        assert np.allclose(mine, theirs, rtol=1e-4) == (t < 2)


def test_eigh_and_newton_agree():
    params, gradients = jax.tree.map(jnp.float32, trial(shapes=SHAPES))
    one, two = (
        final(shampoo(0.02, update_every=3, eps=1e-4, root=root), params, gradients)
        for root in ("eigh", "newton")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, two)


def test_rotated_gradients_make_rotated_steps():
    """Without Adam's graft, which looks at entries."""
    rule = scale_by_shampoo(grafting="sgd", update_every=2)
    q, r = (np.linalg.qr(drawn((n, n), 7))[0] for n in (4, 6))
    gradients = drawn((10, 4, 6))
    straight, turned = steps(rule, gradients), steps(rule, q @ gradients @ r)
    np.testing.assert_allclose(turned[-1], q @ straight[-1] @ r, atol=1e-4)


@pytest.mark.parametrize("grafting", ["none", "sgd", "adam"])
@pytest.mark.parametrize("root", ["eigh", "newton"])
def test_rank_one_gradients_of_any_size(root, grafting):
    rule = scale_by_shampoo(grafting=grafting, graft_eps=0.0, update_every=1, root=root)
    g = np.outer(drawn((4,)), drawn((6,), 1))

    @jax.jit
    def ends(g):
        step = lambda state, _: rule.update(g, state)[::-1]
        state, us = jax.lax.scan(step, rule.init(g), length=3)
        return us[-1], state

    updates = []
    for size in (1e-25, 1e-15, 1.0, 1e15):
        u, state = ends(np.float32(size) * g)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((u, state)))
        updates.append(u)
    if grafting != "sgd":
        np.testing.assert_allclose(updates[1], updates[2], rtol=1e-2, atol=1e-3)
        np.testing.assert_allclose(updates[3], updates[2], rtol=1e-2, atol=1e-3)


def test_layouts_are_each_others_transposes():
    params, gradients = jax.tree.map(jnp.float32, trial(shapes={"w": (4, 6)}))
    turned = [{"w": g["w"].T} for g in gradients]
    one = final(shampoo(0.02, update_every=3), params, gradients)
    two = final(shampoo(0.02, update_every=3, layout="out_in"), {"w": params["w"].T}, turned)
    np.testing.assert_allclose(one["w"], two["w"].T, rtol=1e-4, atol=1e-5)


def test_state_and_routing():
    params = {"w": jnp.ones((4, 6)), "stack": jnp.ones((3, 5, 4)), "bias": jnp.ones(6)}
    state = jax.eval_shape(shampoo(0.1, block_size=3).init, params)
    found = fnopt.tree_get(state, "factors")
    assert jax.tree.map(jnp.shape, found["w"]) == ((1, 4, 2, 2), (1, 4, 3, 3))
    assert jax.tree.map(jnp.shape, found["stack"]) == ((3, 4, 2, 2), (3, 4, 3, 3))
    assert found["bias"] is None
    alone = jax.eval_shape(scale_by_shampoo(block_size=4).init, params).factors
    assert jax.tree.map(jnp.shape, alone["bias"]) == (None, (1, 2, 3, 3))
    bare = jax.eval_shape(scale_by_shampoo(0.0, grafting="sgd").init, params)
    assert bare[1:3] == (None, None)


def test_a_bad_gradient_leaves_the_old_roots():
    rule = scale_by_shampoo(update_every=1)
    update = jax.jit(rule.update)
    _, state = update(drawn((4, 6)), jax.jit(rule.init)(drawn((4, 6))))
    _, after = update(np.full((4, 6), np.nan, np.float32), state)
    jax.tree.map(np.testing.assert_array_equal, after.roots, state.roots)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="grafting must be one of none, sgd"):
        shampoo(0.1, grafting="adamw")
    with pytest.raises(ValueError, match="root must be one of eigh, newton"):
        shampoo(0.1, root="svd")
    with pytest.raises(ValueError, match="update_every must be at least 1, got 0"):
        shampoo(0.1, update_every=0)
    with pytest.raises(ValueError, match="block_size must be at least 1"):
        shampoo(0.1, block_size=0)


def test_a_matrix_with_one_factor_has_its_root():
    """L and R have the power −1/4 together; one alone has −1/2."""
    a = np.diag(np.float32([4.0, 9.0]))[None]
    for factors, power in ((Factors(None, a), -0.5), (Factors(a, a), -0.25)):
        found = jax.jit(lambda f: rooted(f, f, 1.0, 0.0, "eigh"))(factors)
        wanted = np.diag(np.array([4.0, 9.0]) ** power)
        np.testing.assert_allclose(found.right[0], wanted, rtol=1e-5, atol=1e-6)
