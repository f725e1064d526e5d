"""The MLP: backprop by hand against jax.grad, initial variances, dtypes and errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt import mlp

DEPTHS = {1: [4, 3], 2: [4, 6, 3], 3: [4, 6, 5, 3], 5: [4, 6, 5, 4, 5, 3]}
ACTIVATIONS = ("relu", "tanh", "gelu", "sigmoid")


backprop = jax.jit(mlp.backprop, static_argnames="activation")
loss_and_gradient = jax.jit(jax.value_and_grad(mlp.loss), static_argnames="activation")
apply = jax.jit(mlp.apply, static_argnames="activation")


def problem(sizes, dtype=np.float32, n=7):
    """Parameters with biases that matter, rows and labels."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    pairs = itertools.pairwise(sizes)
    params = [
        {"w": normal(i, o) * np.array((2 / i) ** 0.5, dtype), "b": normal(o) * np.array(0.1, dtype)}
        for i, o in pairs
    ]
    return params, normal(n, sizes[0]), jnp.asarray(rng.integers(0, sizes[-1], n), jnp.int32)


def distance(a, b):
    """|a - b| / |b|, Euclidean: of the worst leaf in float64, of the whole tree in float32."""
    a, b = ([np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (a, b))
    if b[0].dtype != np.float64:  # a bias gradient is a sum that cancels: judge them together
        a, b = ([np.concatenate([leaf.ravel() for leaf in leaves])] for leaves in (a, b))
    return max(np.linalg.norm(u - v) / np.linalg.norm(v) for u, v in zip(a, b))


def off(found, rtol, most):
    """Where backprop is not the gradient: the depth, the activation and why, one program's."""
    for name, (params, (value, grads), (loss, true)) in found.items():
        if jax.tree.structure(grads) != jax.tree.structure(params):
            yield f"{name}: the structure {jax.tree.structure(grads)}"
        elif not np.isclose(value, loss, rtol=rtol, atol=0):
            yield f"{name}: the loss {value}, expected {loss}"
        elif not distance(grads, true) < most:
            yield f"{name}: {distance(grads, true)} from the gradient"


def both_ways(dtype):
    """(depth, activation) -> (params, backprop's result, jax.grad's)."""
    problems = {depth: problem(sizes, dtype) for depth, sizes in DEPTHS.items()}

    @jax.jit
    def run(problems):
        true = jax.value_and_grad(mlp.loss)
        return {
            f"{depth} {activation}": (
                args[0],
                mlp.backprop(*args, activation=activation),
                true(*args, activation=activation),
            )
            for depth, args in problems.items()
            for activation in ACTIVATIONS
        }

    return jax.device_get(run(problems))


def test_backprop_is_the_gradient():
    found = both_ways(np.float32)
    assert len(found) == 16
    assert list(off(found, 1e-6, 1e-6)) == []


def test_backprop_is_the_gradient_in_double_precision(x64):
    found = both_ways(np.float64)
    assert {value.dtype for _, (value, _), _ in found.values()} == {np.dtype(np.float64)}
    assert list(off(found, 1e-13, 1e-12)) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_is_the_slope(x64, activation):
    params, x, y = problem([3, 4, 2], np.float64)
    loss = jax.jit(lambda params: mlp.loss(params, x, y, activation=activation))
    _, grads = backprop(params, x, y, activation=activation)
    leaves, treedef = jax.tree.flatten(params)
    for i, leaf in enumerate(leaves):
        step = np.zeros(leaf.shape)
        step.flat[0] = 1e-6
        ends = [
            loss(treedef.unflatten([*leaves[:i], leaf + s * step, *leaves[i + 1 :]]))
            for s in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(jax.tree.leaves(grads)[i].ravel()[0], slope, atol=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_apply_is_the_textbook(activation):
    params, x, _ = problem([4, 6, 5, 3])
    f = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}
    f["gelu"] = lambda z: jax.nn.gelu(z, approximate=False)
    a = np.asarray(x)
    for l, layer in enumerate(params):
        a = a @ np.asarray(layer["w"]) + np.asarray(layer["b"])
        if l < 2:
            a = np.asarray(jax.jit(f[activation])(a))
    np.testing.assert_allclose(apply(params, x, activation=activation), a, atol=2e-6)


def test_initial_variances():
    sizes = [300, 200, 100]
    for activation in ACTIVATIONS:
        params = mlp.init(jax.random.key(1), sizes, activation=activation)
        for layer, n_in, n_out in zip(params, sizes, sizes[1:]):
            he = activation in ("relu", "gelu")
            variance = 2 / n_in if he else 2 / (n_in + n_out)
            np.testing.assert_allclose(np.var(layer["w"]), variance, rtol=0.05)
            assert layer["w"].shape == (n_in, n_out)
            assert not np.asarray(layer["b"]).any()
    same = mlp.init(jax.random.key(1), sizes, activation="tanh", initializer="he")
    other = mlp.init(jax.random.key(1), sizes)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), same, other))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_params(dtype):
    params, x, y = problem([4, 6, 3], jnp.dtype(dtype))
    value, grads = backprop(params, x, y)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    true_value, true = backprop(wide, x, y)
    assert value.dtype == jax.eval_shape(mlp.apply, params, x).dtype == jnp.float32
    np.testing.assert_allclose(value, true_value, rtol=1e-6)
    assert all(g.dtype == jnp.dtype(dtype) for g in jax.tree.leaves(grads))
    assert distance(jax.tree.map(np.float32, grads), true) < 0.01
    auto = jax.eval_shape(jax.grad(mlp.loss), params, x, y)
    assert jax.tree.map(lambda g: g.dtype, auto) == jax.tree.map(lambda g: g.dtype, grads)


def test_under_jit_with_tuples_and_integer_rows():
    params, _, y = problem([4, 6, 3])
    x = np.arange(28, dtype=np.uint8).reshape(7, 4)
    value, grads = jax.jit(mlp.backprop)(tuple(params), x, y)
    assert isinstance(grads, tuple)
    loss, true = loss_and_gradient(tuple(params), x, y)
    np.testing.assert_allclose(value, loss, rtol=1e-6)
    assert distance(grads, true) < 1e-6


def test_it_learns():
    params = mlp.init(jax.random.key(3), [2, 16, 2], activation="tanh")
    x = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
    y = np.int32([0, 1, 1, 0])  # exclusive or

    @jax.jit
    def step(params):
        value, grads = mlp.backprop(params, x, y, activation="tanh")
        return value, jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)

    for _ in range(500):
        value, params = step(params)
    assert value < 0.05
    assert (np.argmax(apply(params, x, activation="tanh"), -1) == y).all()


def test_errors_name_the_argument():
    params, x, y = problem([4, 6, 3])
    with pytest.raises(ValueError, match=r"x must have shape \(n, 4\).*\(7, 3\)"):
        mlp.apply(params, x[:, :3])
    with pytest.raises(ValueError, match=r"x must have shape"):
        mlp.backprop(params, x[0], y)
    with pytest.raises(ValueError, match=r"labels must have shape \(7,\), got \(5,\)"):
        mlp.backprop(params, x, y[:5])
    with pytest.raises(ValueError, match="labels must have an integer dtype"):
        mlp.loss(params, x, y.astype(jnp.float32))
    with pytest.raises(ValueError, match="activation must be one of relu, tanh"):
        mlp.apply(params, x, activation="swish")
    with pytest.raises(ValueError, match="initializer must be one of he, glorot"):
        mlp.init(jax.random.key(0), [2, 2], initializer="zeros")
    for sizes in ([4], [4, 0, 2]):
        with pytest.raises(ValueError, match="sizes must be"):
            mlp.init(jax.random.key(0), sizes)
