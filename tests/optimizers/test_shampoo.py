import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.optimizers.shampoo import scale_by_shampoo, shampoo
from fnopt.testing.oracles import largest_error, leafwise, trial

SHAPES = {"tall": (5, 3), "wide": (3, 5), "square": (4, 4), "stack": (2, 3, 4), "vector": (5,)}
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


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float32(setting):
    """Roots magnify the rounding of what the factors have not seen yet, at t = 1 most of it."""
    got = largest_error(ours(0.02, **setting), oracle(0.02, **setting), shapes=SHAPES)
    assert got < (3e-4 if setting.get("start") == 1 else 1e-5)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    wanted = oracle(0.02, **setting)
    assert largest_error(ours(0.02, **setting), wanted, jnp.float64, shapes=SHAPES) < 1e-12


def final(optimizer, params, gradients):
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g in gradients:
        updates, state = update(g, state, params)
        params = fnopt.apply_updates(params, updates)
    return params


def drawn(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_on_a_diagonal_problem_it_is_adagrad():
    """Of a diagonal G both factors are the sums of squares: G over two fourth roots of them."""
    rule = scale_by_shampoo(0.0, 1.0, eps=1e-12, grafting="none", update_every=1)
    adagrad = fnopt.scale_by_rss(0.0, 0.0)
    one, two = rule.init(jnp.eye(4)), adagrad.init(jnp.eye(4))
    for seed in range(5):
        g = jnp.diag(drawn((4,), seed))
        mine, one = rule.update(g, one)
        theirs, two = adagrad.update(g, two)
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("grafting", "method"),
    [
        ("sgd", fnopt.ema(0.9)),
        ("adam", fnopt.scale_by_adam(0.9, 0.999, 1e-8)),
    ],
)
def test_a_step_is_as_long_as_the_grafted_methods(grafting, method):
    rule = scale_by_shampoo(grafting=grafting, update_every=2)
    params = drawn((4, 6))
    state, other = rule.init(params), method.init(params)
    for t in range(1, 8):
        mine, state = rule.update(drawn((4, 6), t), state)
        theirs, other = method.update(drawn((4, 6), t), other)
        np.testing.assert_allclose(jnp.linalg.norm(mine), jnp.linalg.norm(theirs), rtol=1e-5)
        assert bool(jnp.allclose(mine, theirs, rtol=1e-4)) == (t < 2)


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
    q, r = (jnp.linalg.qr(drawn((n, n), 7))[0] for n in (4, 6))
    one, two = rule.init(jnp.zeros((4, 6))), rule.init(jnp.zeros((4, 6)))
    for t in range(10):
        g = drawn((4, 6), t)
        straight, one = rule.update(g, one)
        turned, two = rule.update(q @ g @ r, two)
    np.testing.assert_allclose(turned, q @ straight @ r, atol=1e-4)


@pytest.mark.parametrize("grafting", ["none", "sgd", "adam"])
@pytest.mark.parametrize("root", ["eigh", "newton"])
def test_rank_one_gradients_of_any_size(root, grafting):
    rule = scale_by_shampoo(grafting=grafting, graft_eps=0.0, update_every=1, root=root)
    g = jnp.outer(drawn((4,)), drawn((6,), 1))
    updates = []
    for size in (1e-25, 1e-15, 1.0, 1e15):
        state = rule.init(g)
        for _ in range(3):
            u, state = rule.update(size * g, state)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((u, state)))
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
    state = shampoo(0.1, block_size=3).init(params)
    found = fnopt.tree_get(state, "factors")
    assert jax.tree.map(jnp.shape, found["w"]) == ((1, 4, 2, 2), (1, 4, 3, 3))
    assert jax.tree.map(jnp.shape, found["stack"]) == ((3, 4, 2, 2), (3, 4, 3, 3))
    assert found["bias"] is None
    alone = scale_by_shampoo(block_size=4).init(params).factors
    assert jax.tree.map(jnp.shape, alone["bias"]) == (None, (1, 2, 3, 3))
    assert scale_by_shampoo(0.0, grafting="sgd").init(params)[1:3] == (None, None)


def test_a_bad_gradient_leaves_the_old_roots():
    rule = scale_by_shampoo(update_every=1)
    _, state = rule.update(drawn((4, 6)), rule.init(jnp.zeros((4, 6))))
    _, after = rule.update(jnp.full((4, 6), jnp.nan), state)
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
