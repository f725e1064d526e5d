import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnopt.testing import problems

key = functools.cache(lambda: jax.random.key(3))
PROBLEMS = {
    "quadratic": lambda: problems.quadratic(key()),
    "quadratic, a ball": lambda: problems.quadratic(key(), dimension=3, condition_number=1.0),
    "rosenbrock": lambda: problems.rosenbrock(),
    "rosenbrock of 5": lambda: problems.rosenbrock(5),
    "beale": lambda: problems.beale(),
    "rastrigin": lambda: problems.rastrigin(key()),
    "styblinski_tang": lambda: problems.styblinski_tang(),
    "styblinski_tang of 3": lambda: problems.styblinski_tang(3),
    "logistic_regression": lambda: problems.logistic_regression(key()),
    "matrix_factorization": lambda: problems.matrix_factorization(key()),
    "deep_linear_network": lambda: problems.deep_linear_network(key()),
}
made = functools.cache(lambda name: PROBLEMS[name]())
every = pytest.mark.parametrize("name", PROBLEMS)


@pytest.fixture
def problem(name):
    return made(name)


def wide(t):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), t)


def test_every_problem_is_tried():
    functions = inspect.getmembers(problems, inspect.isfunction)
    own = {n for n, f in functions if f.__module__ == problems.__name__ and n[0] != "_"}
    assert {made(name).name for name in PROBLEMS} == own
    assert len(own) >= 8


# The points and values of the literature (Jamil & Yang 2013, arXiv 1308.4008).
KNOWN = {
    "rosenbrock": (lambda: problems.rosenbrock(5), [1.0] * 5, 0.0),
    "beale": (lambda: problems.beale(), [3.0, 0.5], 0.0),
    "rastrigin": (lambda: problems.rastrigin(key(), 3), [0.0] * 3, 0.0),
    "styblinski_tang": (lambda: problems.styblinski_tang(2), [-2.903534] * 2, -78.33233),
}


@pytest.mark.parametrize("known", KNOWN)
def test_known_minima(known, x64):
    make, point, value = KNOWN[known]
    problem = make()
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(problem.optimum)])
    np.testing.assert_allclose(found, point, rtol=1e-6)
    np.testing.assert_allclose(problem.minimum, value, rtol=1e-7)
    pair = dict(zip("xy", jnp.array(point)))
    at = pair if problem.name == "beale" else {"x": jnp.array(point)}
    np.testing.assert_allclose(problem.loss(at), value, rtol=1e-6, atol=1e-12)


@every
def test_the_optimum_has_the_least_loss(problem, x64):
    def loss(params):
        return float(problem.loss(jax.tree.map(jnp.asarray, params)))

    optimum = wide(problem.optimum)
    least = loss(optimum)
    np.testing.assert_allclose(least, problem.minimum, rtol=1e-6, atol=1e-9)
    assert loss(wide(problem.init)) > least + 1e-3
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1, 1.0):
        near = jax.tree.map(lambda x: x + size * rng.normal(size=x.shape), optimum)
        assert loss(near) > least


@every
def test_the_gradient_vanishes_there(problem, x64):
    at = jax.tree.map(jnp.asarray, wide(problem.optimum))
    start = jax.tree.map(jnp.asarray, wide(problem.init))
    size = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(jax.grad(problem.loss)(start)))
    for g in jax.tree.leaves(jax.grad(problem.loss)(at)):
        assert g.dtype == jnp.float64
        np.testing.assert_allclose(g, 0.0, atol=1e-4 * max(size, 1.0))


@every
def test_float32_and_strict_promotion(problem):
    assert {x.dtype.name for x in jax.tree.leaves(problem.init)} == {"float32"}
    assert jax.jit(problem.loss)(problem.init).dtype == jnp.float32
    assert jax.tree.structure(problem.init) == jax.tree.structure(problem.optimum)


def test_keys_decide():
    one, two = problems.quadratic(key()), problems.quadratic(key())
    np.testing.assert_array_equal(one.init["x"], two.init["x"])
    other = problems.quadratic(jax.random.key(4))
    assert float(jnp.abs(one.init["x"] - other.init["x"]).max()) > 1e-3


def test_condition_number(x64):
    problem = problems.quadratic(key(), dimension=4, condition_number=50.0)
    hessian = jax.hessian(problem.loss)({"x": jnp.zeros(4, jnp.float64)})["x"]["x"]
    np.testing.assert_allclose(np.linalg.cond(hessian), 50.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: problems.quadratic(key(), 1), "dimension must be at least 2"),
        (lambda: problems.quadratic(key(), 3, 0.5), "condition_number at least 1"),
        (lambda: problems.rosenbrock(1), "dimension"),
        (lambda: problems.rastrigin(key(), 0), "rastrigin: dimension must be at least 1, got 0"),
        (lambda: problems.styblinski_tang(0), "styblinski_tang: dimension must be at least 1"),
        (lambda: problems.logistic_regression(key(), weight_decay=0.0), "weight_decay"),
        (lambda: problems.matrix_factorization(key(), 8, 6, 7), "rank must be from 1 to 6, got 7"),
        (lambda: problems.deep_linear_network(key(), [3]), "sizes"),
    ],
)
def test_senseless_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
