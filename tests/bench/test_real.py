"""The tasks on real data: the same from a seed, and learned from in a few steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.bench import models, real
from fnopt.bench.learning import learn
from fnopt.training.data import load_digits

SMALL = models.Sizes(context=16, width=16, layers=1, heads=2)


def small(seed=0, **given):
    return real.characters(seed, held_out=16, sizes=SMALL, **given)


MAKERS = {
    "digits_mlp": real.digits_mlp,
    "digits_convolutional": real.digits_convolutional,
    "characters": small,
}


def arrays(task):
    return jax.tree.leaves((task.init, task.batches, task.whole))


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_makes_a_task(name):
    """Another one other params and batches, and the same that is held out."""
    one, again, other = (MAKERS[name](seed, steps=3) for seed in (1, 1, 2))
    for a, b in zip(arrays(one), arrays(again)):
        np.testing.assert_array_equal(a, b)
    for part in ("init", "batches"):
        pairs = zip(*(jax.tree.leaves(getattr(task, part)) for task in (one, other)))
        assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)
    for a, b in zip(jax.tree.leaves(one.whole), jax.tree.leaves(other.whole)):
        np.testing.assert_array_equal(a, b)
    assert one.steps == 3


@pytest.mark.parametrize("name", MAKERS)
def test_bfloat16_begins_with_the_rounded_params(name):
    wide, narrow = (MAKERS[name](steps=2, dtype=d) for d in (jnp.float32, jnp.bfloat16))
    for a, b in zip(jax.tree.leaves(wide.init), jax.tree.leaves(narrow.init)):
        assert b.dtype == jnp.bfloat16
        np.testing.assert_array_equal(a.astype(jnp.bfloat16), b)
    loss = narrow.loss(narrow.init, narrow.whole)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, wide.loss(wide.init, wide.whole), rtol=0.02)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_loss_falls(name, dtype):
    task = MAKERS[name](steps=10, dtype=dtype)
    start = task.loss(task.init, task.whole)
    assert learn([task], fnopt.adamw(1e-2)).final[0] < 0.8 * start


def test_digits_are_batches_of_the_training_rows():
    """More epochs than one, each row at most once in each; the test rows are held out."""
    data, task = load_digits(), real.digits_mlp(steps=50)
    x, y = task.batches
    assert (x.shape, y.shape) == ((50, 32, 64), (50, 32))
    known = {row.tobytes() for row in data.x_train}
    seen = [np.asarray(row).tobytes() for row in x.reshape(-1, 64)]
    assert set(seen) <= known
    first = seen[: 44 * 32]  # the whole batches in 1,437 rows
    assert len(set(first)) == len(first)
    np.testing.assert_array_equal(task.whole[0], data.x_test)


def test_quantized_state_has_matrices_to_apply_to():
    """Nearly all parameters are in leaves of at least 4,096 entries."""
    task = real.characters(steps=1)
    sizes = [x.size for x in jax.tree.leaves(task.init)]
    assert sum(sizes) == 120_192
    assert sum(n for n in sizes if n >= 4096) > 0.98 * sum(sizes)
    assert {x.ndim for x in jax.tree.leaves(task.init)} == {1, 2}
    assert task.batches.shape == (1, 4, 65)
    assert task.whole.shape == (256, 65)
