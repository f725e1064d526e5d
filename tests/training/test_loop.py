"""`fit`: scanned and step by step, resumed, stopped and evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.training import fit, make_train_step
from fnopt.training.loop import FitResult
from fnopt.training.progress import Progress

RNG = np.random.RandomState(0)
X = RNG.normal(size=(50, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)
PARAMS = {"w": np.zeros(3, np.float32)}


def squared(params, batch):
    x, y = batch
    return jnp.mean((x @ params["w"] - y) ** 2)


def setup(optimizer=None):
    train_step = make_train_step(squared, optimizer or fnopt.adam(0.1))
    return train_step, train_step.init(PARAMS)


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("on_device", [True, False, None])
def test_it_learns(on_device):
    step, state = setup()
    result = fit(step, state, (X, Y), epochs=30, batch_size=8, on_device=on_device)
    assert isinstance(result, FitResult)
    assert result.stopped is None
    np.testing.assert_allclose(result.state.params["w"], [1.0, -2.0, 0.5], atol=0.05)
    assert len(result.history) == 30
    last = result.history[-1]
    assert last["epoch"] == 30
    assert last["step"] == 180 == int(result.state.step)
    assert set(last) == {
        "epoch", "step", "loss", "grad_norm", "update_norm", "learning_rate", "seconds",
    }  # fmt: skip
    assert int(state.step) == 0, "the state given stays valid"


def test_scanned_and_step_by_step_agree():
    step, state = setup()
    scanned = fit(step, state, (X, Y), epochs=3, batch_size=8, seed=4, on_device=True)
    stepped = fit(step, state, (X, Y), epochs=3, batch_size=8, seed=4, on_device=False)
    np.testing.assert_allclose(scanned.state.params["w"], stepped.state.params["w"], rtol=1e-4)
    for a, b in zip(scanned.history, stepped.history):
        for name in set(a) - {"seconds"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-3)


@pytest.mark.parametrize("on_device", [True, False])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(on_device):
    step, state = setup(fnopt.adam(fnopt.schedules.cosine_decay_schedule(0.1, 24)))
    options = {"batch_size": 8, "seed": 1, "on_device": on_device}
    whole = fit(step, state, (X, Y), epochs=4, **options)
    first = fit(step, state, (X, Y), epochs=2, **options)
    rest = fit(step, first.state, (X, Y), epochs=4, start_epoch=2, **options)
    assert bits(whole.state) == bits(rest.state)
    assert [r["epoch"] for r in rest.history] == [3, 4]


def test_the_seed_decides():
    step, state = setup()
    runs = [
        fit(step, state, (X, Y), epochs=1, batch_size=8, seed=seed).state
        for seed in (0, 0, 1, jax.random.key(1))
    ]
    assert bits(runs[0]) == bits(runs[1])
    assert bits(runs[0]) != bits(runs[2])
    assert bits(runs[2]) == bits(runs[3])


def test_the_epoch_is_traced_once():
    traces = []

    def counted(params, batch):
        traces.append(1)
        return squared(params, batch)

    step = make_train_step(counted, fnopt.sgd(0.1))
    fit(step, step.init(PARAMS), (X, Y), epochs=5, batch_size=8, on_device=True)
    assert len(traces) == 1


@pytest.mark.parametrize("on_device", [True, False])
def test_it_stops_where_the_loss_is_not_finite(on_device):
    """Steps of size 3 then 1e30: finite epochs first, then an overflow."""
    rate = fnopt.schedules.piecewise_constant_schedule(0.01, {12: 1e30})
    step, state = setup(fnopt.sgd(rate))
    good = fit(step, state, (X, Y), epochs=2, batch_size=8, on_device=on_device)
    seen = []
    result = fit(
        step,
        state,
        (X, Y),
        epochs=9,
        batch_size=8,
        on_device=on_device,
        on_epoch=lambda record, state: seen.append(record["epoch"]),
    )
    assert bits(result.state) == bits(good.state)
    assert seen == [1, 2]
    assert [r["epoch"] for r in result.history] == [1, 2]
    for words in ("the loss became", "(epoch 3)", "the state after epoch 2 is kept"):
        assert words in result.stopped
    step_number = int(result.stopped.split("at step ")[1].split()[0])
    assert 13 < step_number <= 18


def test_it_stops_where_a_parameter_is_not_finite():
    """The last update of the epoch overflows, so that no loss has seen it."""
    rate = fnopt.schedules.piecewise_constant_schedule(0.01, {5: 3.3e40})
    step, state = setup(fnopt.sgd(rate))
    result = fit(step, state, (X, Y), epochs=3, batch_size=8, on_device=True)
    assert result.history == []
    assert "at step 6 (epoch 1); the state after epoch 0 is kept" in result.stopped
    assert bits(result.state) == bits(state)


def test_evaluation_is_a_mean_over_the_rows_in_chunks():
    def evaluate(params, batch):
        return {"loss": squared(params, batch)}

    step, state = setup()
    options = {"epochs": 1, "batch_size": 10, "evaluate": evaluate}
    sets = {"test": (X[:37], Y[:37]), "train": (X, Y)}
    for on_device in (True, False):
        for chunk in (7, 37, 1000):
            result = fit(
                step,
                state,
                (X, Y),
                evaluation_data=sets,
                evaluation_batch_size=chunk,
                on_device=on_device,
                **options,
            )
            record = result.history[0]
            assert [n for n in record if n.endswith("_loss")] == ["test_loss", "train_loss"]
            for name, rows in sets.items():
                expected = squared(result.state.params, rows)
                np.testing.assert_allclose(record[f"{name}_loss"], expected, rtol=1e-5)


def test_batches_may_come_from_a_function():
    seen = []

    def batches(epoch):
        for i in range(epoch + 1):
            seen.append((epoch, i))
            yield X[i * 8 : i * 8 + 8], Y[i * 8 : i * 8 + 8]

    step, state = setup()
    result = fit(step, state, batches, epochs=3)
    assert [r["step"] for r in result.history] == [1, 3, 6]
    assert seen == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]


def test_aux_scalars_are_recorded():
    def with_aux(params, batch):
        loss = squared(params, batch)
        return loss, {"double": 2 * loss, "vector": params["w"]}

    step = make_train_step(with_aux, fnopt.sgd(0.1), has_aux=True)
    for on_device in (True, False):
        result = fit(step, step.init(PARAMS), (X, Y), epochs=1, batch_size=8, on_device=on_device)
        record = result.history[0]
        np.testing.assert_allclose(record["aux/double"], 2 * record["loss"], rtol=1e-5)
        assert "aux/vector" not in record


def test_optax_trains(standard_numerics):
    import optax

    step, state = setup(optax.adam(0.1))
    result = fit(step, state, (X, Y), epochs=20, batch_size=8)
    np.testing.assert_allclose(result.state.params["w"], [1.0, -2.0, 0.5], atol=0.1)


def test_progress_is_told_everything():
    told = []

    class Told(Progress):
        def start(self, epochs, done=0):
            told.append(("start", epochs, done))

        def step(self, done, total):
            told.append(("step", done, total))

        def epoch(self, record):
            told.append(("epoch", record["epoch"]))

        def close(self):
            told.append("close")

    step, state = setup()
    fit(step, state, (X, Y), epochs=2, batch_size=25, on_device=False, progress=Told())
    assert told == [
        ("start", 2, 0), ("step", 1, 2), ("step", 2, 2), ("epoch", 1),
        ("step", 1, 2), ("step", 2, 2), ("epoch", 2), "close",
    ]  # fmt: skip


def test_a_run_that_is_over_does_nothing():
    step, state = setup()
    result = fit(step, state, (X, Y), epochs=2, batch_size=8, start_epoch=2)
    assert result == (state, [], None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"epochs": 1.5}, "epochs must be a positive integer"),
        ({"batch_size": 51}, "batch_size 51 exceeds the 50"),
        ({"batch_size": None}, "needs batch_size"),
        ({"data": (X, Y[:3])}, "different lengths"),
        ({"data": lambda epoch: []}, "without batches"),
    ],
)
def test_mistakes_are_named(options, words):
    step, state = setup()
    given = {"epochs": 1, "batch_size": 8, "data": (X, Y)} | options
    data = given.pop("data")
    with pytest.raises(ValueError, match=words):
        fit(step, state, data, **given)


def test_evaluation_sees_the_averages():
    step, state = setup(fnopt.ema_params(fnopt.sgd(0.1), 0.99))

    def first(params, data):
        return {"w": params["w"][0] + 0 * jnp.sum(data[1])}

    result = fit(
        step, state, (X, Y), epochs=1, batch_size=10, evaluate=first,
        evaluation_data={"test": (X, Y)},
    )  # fmt: skip
    averaged = fnopt.eval_params(result.state.optimizer_state, result.state.params)["w"][0]
    assert result.history[-1]["test_w"] == pytest.approx(float(averaged), rel=1e-5)
    assert abs(float(averaged) - float(result.state.params["w"][0])) > 0.01
