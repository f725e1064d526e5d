import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_oracles import errors, stacked, trained

import fnopt
from fnopt.optimizers.soap import SoapState, scale_by_soap, soap
from fnopt.testing.oracles import leafwise, trial

SHAPES = {"tall": (5, 4), "wide": (3, 4), "stack": (2, 3, 3), "vector": (5,)}
NUMBERS = {
    name: None if len(shape) < 2 else fnopt.MatrixDimensionNumbers(len(shape) - 2, len(shape) - 1)
    for name, shape in SHAPES.items()
}


def descending(a, resolution):
    """With the small diagonal that chooses among eigenvectors of equal values."""
    size = np.abs(a).max()
    falling = resolution**0.4 * np.linspace(1, 0, len(a)) if len(a) > 1 else [0.0]
    return np.linalg.eigh(a / (size or 1.0) + np.diag(falling))[1][:, ::-1]


def turned(a, q):
    """Sorted by diag(QᵀAQ), then QR of AQ."""
    order = np.argsort(-np.diag(q.T @ a @ q), kind="stable")
    return np.linalg.qr(a @ q[:, order])[0], order


def oracle(
    rate,
    b1=0.95,
    b2=0.95,
    shampoo_beta=None,
    eps=1e-8,
    weight_decay=0.01,
    precondition_frequency=10,
    max_precond_dim=10_000,
    normalize=False,
    adam_rate=3e-3,
    adam_b1=0.95,
    adam_b2=0.95,
    resolution=2.0**-52,
):
    beta = b2 if shampoo_beta is None else shampoo_beta

    def matrix(theta, gradients):
        rows, columns = theta.shape
        left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
        q_left, q_right = np.eye(rows), np.eye(columns)
        m, v = np.zeros_like(theta), np.zeros_like(theta)  # m in the space of the parameters
        for t, g in enumerate(gradients):
            u = np.zeros_like(theta)
            if t:
                low = q_left.T @ g @ q_right
                m = b1 * m + (1 - b1) * g
                v = b2 * v + (1 - b2) * low**2
                mean = q_left.T @ m @ q_right / (1 - b1**t)
                u = q_left @ (mean / (np.sqrt(v / (1 - b2**t)) + eps)) @ q_right.T
                if normalize and u.any():
                    u = u / np.sqrt(np.mean(u**2))
            theta = theta - rate * (u + weight_decay * theta)
            left = beta * left + (1 - beta) * g @ g.T
            right = beta * right + (1 - beta) * g.T @ g
            if rows <= max_precond_dim and t % precondition_frequency == 0:
                if t:
                    q_left, order = turned(left, q_left)
                    v = v[order]
                else:
                    q_left = descending(left, resolution)
            if columns <= max_precond_dim and t % precondition_frequency == 0:
                if t:
                    q_right, order = turned(right, q_right)
                    v = v[:, order]
                else:
                    q_right = descending(right, resolution)
            yield theta

    def vector(theta, gradients):
        m = v = 0.0
        for t, g in enumerate(gradients, 1):
            m, v = adam_b1 * m + (1 - adam_b1) * g, adam_b2 * v + (1 - adam_b2) * g**2
            u = m / (1 - adam_b1**t) / (np.sqrt(v / (1 - adam_b2**t)) + 1e-8)
            theta = theta - adam_rate * u
            yield theta

    @leafwise
    def run(theta, gradients):
        if theta.ndim < 2:
            return vector(theta, gradients)
        if theta.ndim == 2:
            return matrix(theta, gradients)
        layers = [matrix(x, [g[i] for g in gradients]) for i, x in enumerate(theta)]
        return map(np.stack, zip(*layers))

    return run


SETTINGS = [
    dict(),
    dict(b1=0.0, b2=0.9, eps=1e-3, weight_decay=0.1, precondition_frequency=3),
    dict(b1=0.8, shampoo_beta=0.7, precondition_frequency=1, normalize=True, weight_decay=0.0),
    dict(b1=0.5, max_precond_dim=4, precondition_frequency=2),
]


def full_rank(setting):
    """Of a first gradient of 5 × 4 the null space of GGᵀ is the solver's to choose."""
    return {
        name: shape
        for name, shape in SHAPES.items()
        if len(shape) < 2
        or shape[-2] == shape[-1]
        or max(shape[-2:]) > setting.get("max_precond_dim", 10_000)
    }


# the settings' rules are the same in float64; all of a step's branches are in this one
IN_FLOAT32 = [
    pytest.param(setting, marks=[pytest.mark.sweep] * (i != 3))
    for i, setting in enumerate(SETTINGS)
]


@pytest.mark.parametrize("setting", IN_FLOAT32, ids=str)
def test_oracle_in_float32(setting):
    shapes = full_rank(setting)
    ours = soap(0.02, dimension_numbers={k: NUMBERS[k] for k in shapes}, **setting)
    wanted = oracle(0.02, resolution=2.0**-23, **setting)
    found = errors(ours, wanted, np.float32, shapes)
    assert max(found.values()) < 5e-5, found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_oracle_in_float64(setting, x64):
    """A first gradient of low rank too: half of the digits are lost to the small diagonal."""
    ours = soap(
        0.02,
        dimension_numbers=NUMBERS,
        fallback=fnopt.adam(0.01, b1=0.5, b2=0.9),
        **setting,
    )
    wanted = oracle(0.02, adam_rate=0.01, adam_b1=0.5, adam_b2=0.9, **setting)
    found = errors(ours, wanted, np.float64, SHAPES)
    assert found.keys() == SHAPES.keys()
    assert all(
        error < (1e-11 if k in full_rank(setting) else 1e-6) for k, error in found.items()
    ), found


def steps(optimizer, gradients):
    """(the updates, the state after the last)."""

    @jax.jit
    def run(gradients):
        params = jnp.zeros_like(gradients[0])
        step = lambda state, g: optimizer.update(g, state, params)[::-1]
        return jax.lax.scan(step, optimizer.init(params), gradients)[::-1]

    return run(gradients)


def random(*shape, count=12, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=(count, *shape)))


@pytest.mark.parametrize("shape", [(6, 4), (3, 5), (2, 3, 4)], ids=str)
def test_with_identity_bases_it_is_adam_one_gradient_late(shape):
    gradients = random(*shape)
    ours, _ = steps(scale_by_soap(0.9, 0.99, max_precond_dim=0), gradients)
    adam, _ = steps(fnopt.scale_by_adam(0.9, 0.99), gradients[1:])
    np.testing.assert_array_equal(ours[0], 0)
    np.testing.assert_allclose(ours[1:], adam, rtol=1e-5)


def test_gradients_diagonal_in_one_basis_are_adams_there(x64):
    """G = U D Vᵀ for a fixed U and V: SOAP is Adam on D, which is diagonal."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    diagonals = [np.diag(rng.uniform(1, 2, size=4) * [8, 4, 2, 1]) for _ in range(25)]
    ours, _ = steps(scale_by_soap(eps=1e-3), np.stack([u @ d @ v.T for d in diagonals]))
    adam, _ = steps(fnopt.scale_by_adam(0.95, 0.95, 1e-3), np.stack(diagonals[1:]))
    # but for the small diagonal beside the first factors
    np.testing.assert_allclose(ours[1:], [u @ np.asarray(a) @ v.T for a in adam], atol=1e-2)


@pytest.mark.parametrize("shape", [(6, 4), (3, 5)], ids=str)
def test_layouts_are_transposed(shape):
    gradients = random(*shape)
    one, _ = steps(scale_by_soap(precondition_frequency=3), gradients)
    two, _ = steps(scale_by_soap(precondition_frequency=3, layout="out_in"), gradients.mT)
    np.testing.assert_allclose(one, two.mT, atol=1e-5)


def test_transposing_the_gradient_transposes_the_update():
    """Of a square one, in both layouts."""
    gradients = random(4, 4)
    one, _ = steps(scale_by_soap(precondition_frequency=3), gradients)
    for layout in ("in_out", "out_in"):
        two, _ = steps(scale_by_soap(precondition_frequency=3, layout=layout), gradients.mT)
        np.testing.assert_allclose(one, two.mT, atol=1e-5)


def test_stacked_layers_are_single_ones():
    gradients = random(3, 4, 5)
    whole, _ = steps(scale_by_soap(precondition_frequency=3), gradients)
    alone, _ = steps(scale_by_soap(precondition_frequency=3), gradients[:, 1])
    np.testing.assert_allclose(whole[:, 1], alone, atol=1e-5)


def test_rotating_the_gradients_rotates_the_updates(x64):
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    gradients = rng.normal(size=(25, 4, 4))
    one, _ = steps(scale_by_soap(), gradients)
    two, _ = steps(scale_by_soap(), left @ gradients @ right)
    # but for the small diagonal beside the first factors
    np.testing.assert_allclose(left @ np.asarray(one) @ right, two, atol=2e-2)


def test_rank_deficient_and_zero_gradients():
    rng = np.random.default_rng(0)
    low = np.float32(rng.normal(size=(30, 6, 1)) @ rng.normal(size=(30, 1, 4)))
    zero = np.zeros((1, 6, 4), np.float32)
    both = np.stack([np.concatenate([first, low, zero]) for first in (zero, low[:1])], 1)
    rule = scale_by_soap(precondition_frequency=2)
    # two of one shape are steps of a stack
    moved, state = steps(rule, both)
    assert all(np.isfinite(x).all() for x in [moved, *jax.tree.leaves(state)])
    assert np.abs(moved).max() < 10
    for q in map(np.asarray, state.bases):
        np.testing.assert_allclose(
            q.mT @ q, np.broadcast_to(np.eye(q.shape[-1]), q.shape), atol=1e-5
        )


def test_bases_come_to_be_the_factors_eigenvectors():
    gradients = random(3, 4, count=200) * np.float32([[1.0, 4.0, 2.0, 0.5]])
    _, state = steps(scale_by_soap(shampoo_beta=0.999, precondition_frequency=1), gradients)
    q, a = (np.asarray(x.right[0]) for x in (state.bases, state.factors))
    inside = (q.mT @ a @ q)[0]
    rest = inside - inside * np.eye(4)
    assert np.abs(rest).max() < 0.02 * np.abs(inside).max()
    assert (np.diff(np.diagonal(inside)) < 0).all()


def test_the_state_says_what_went_where():
    params = {"embed": jnp.ones((9, 4)), "w": jnp.ones((3, 4)), "b": jnp.ones(4)}
    init = lambda **words: jax.eval_shape(soap(0.02, **words).init, params)
    state = fnopt.find(init(max_precond_dim=3), SoapState)
    assert jax.tree.map(jnp.shape, state.mu) == {"embed": None, "w": (3, 4), "b": None}
    assert state.factors["w"].left.shape == (1, 1, 3, 3)
    assert state.factors["w"].right is None
    assert fnopt.find(init(b1=0.0), SoapState).mu is None


def test_it_descends_where_the_axes_are_turned():
    rng = np.random.default_rng(0)
    left, right = (np.float32(np.linalg.qr(rng.normal(size=(8, 8)))[0]) for _ in range(2))
    scales = np.float32(np.logspace(0, -3, 8))

    def loss(w):
        return jnp.sum((scales[:, None] * (left @ w @ right - 1)) ** 2)

    def reached(optimizer):
        params = jnp.zeros((8, 8))

        def step(carry, _):
            params, state = carry
            u, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (fnopt.apply_updates(params, u), state), None

        rate_end = jax.lax.scan(step, (params, optimizer.init(params)), length=300)[0][0]
        return float(loss(rate_end))

    rate = fnopt.cosine_decay_schedule(0.05, 300)
    adam = fnopt.adamw(rate, 0.95, 0.95, weight_decay=0.0)
    assert reached(soap(rate, weight_decay=0.0)) < 0.5 * reached(adam)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="precondition_frequency must be at least 1"):
        soap(0.02, precondition_frequency=0)
    with pytest.raises(ValueError, match="max_precond_dim at least 0"):
        soap(0.02, max_precond_dim=-1)
    with pytest.raises(ValueError, match="layout must be one of"):
        soap(0.02, layout="oi").init({"w": jnp.ones((2, 2))})


def test_a_trial_stays_finite_in_bfloat16():
    params, gradients = jax.tree.map(jnp.bfloat16, trial(15, shapes=SHAPES))
    moved = trained(soap(0.02))(params, stacked(gradients))
    assert all(np.isfinite(np.float32(x)).all() for x in jax.tree.leaves(moved))
