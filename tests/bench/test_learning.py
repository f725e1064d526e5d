"""A whole run in one program is the loop that one writes, for each seed."""

import jax
import jax.numpy as jnp
import numpy as np

import fnopt
from fnopt.bench.learning import learn
from fnopt.bench.tasks import Task


def loss(params, batch):
    return jnp.mean((params["w"] - batch) ** 2)


def task(seed):
    batches = jax.random.normal(jax.random.key(seed), (5, 3))
    return Task({"w": jnp.full((3,), float(seed))}, loss, batches, jnp.zeros(3))


def test_it_is_the_loop():
    tasks, optimizer = [task(1), task(2)], fnopt.adamw(0.1)
    found = learn(tasks, optimizer)
    for i, one in enumerate(tasks):
        params, state, losses = one.init, optimizer.init(one.init), []
        for batch in one.batches:
            value, gradients = jax.value_and_grad(loss)(params, batch)
            updates, state = optimizer.update(gradients, state, params)
            params = fnopt.apply_updates(params, updates)
            losses.append(value)
        np.testing.assert_allclose(found.losses[i], losses, rtol=1e-5)
        np.testing.assert_allclose(found.final[i], loss(params, one.whole), rtol=1e-5)


def test_each_step_of_each_run_has_a_key_of_its_own():
    """Params that become a number drawn from the key."""

    def apply(params, updates, key):
        return {"w": jax.random.normal(key, (3,))}

    alike = [task(1), task(1)._replace(init={"w": jnp.ones((3,))})]
    found = learn(alike, fnopt.sgd(0.1), apply)
    losses = np.asarray(found.losses)[:, 1:]
    assert len(np.unique(losses)) == losses.size


def test_the_final_loss_is_of_the_params_for_evaluation():
    one, optimizer = task(3), fnopt.ema_params(fnopt.sgd(0.1), 0.9)
    params, state = one.init, optimizer.init(one.init)
    for batch in one.batches:
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        params = fnopt.apply_updates(params, updates)
    expected = loss(fnopt.eval_params(state, params), one.whole)
    assert abs(expected - loss(params, one.whole)) > 0.1
    np.testing.assert_allclose(learn([one], optimizer).final[0], expected, rtol=1e-5)
