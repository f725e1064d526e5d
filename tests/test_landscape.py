"""`fnopt landscape`: the paths, the pictures, and what it says about bad input."""

import argparse
import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fnopt
from fnopt.landscape import add_arguments, run, style
from fnopt.landscape.pictures import visible
from fnopt.landscape.surfaces import SURFACES
from fnopt.landscape.trajectories import Trajectory, descend, trajectories
from fnopt.training.errors import CommandError

RAVINE = {"ravine": SURFACES["ravine"]}


def landscape(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_are_what_they_say(name):
    surface = SURFACES[name]
    left, right, bottom, top = surface.frame
    x, y = np.meshgrid(np.linspace(left, right, 80), np.linspace(bottom, top, 80))
    grid = jnp.array(np.stack([x.ravel(), y.ravel()], axis=-1), jnp.float32)
    assert jax.vmap(surface.f)(grid).min() >= -1e-6
    for minimum in surface.minima:
        assert abs(float(surface.f(jnp.array(minimum)))) < 1e-6
    for point in (*surface.minima, surface.start):
        assert left < point[0] < right
        assert bottom < point[1] < top


def test_a_path_is_gradient_descent():
    f = SURFACES["saddle"].f
    points, values = descend(fnopt.sgd(0.1), f, (1.0, 0.5), 2)
    w = np.array([1.0, 0.5])
    for point, value in zip(points, values):
        np.testing.assert_allclose(point, w, rtol=1e-6)
        np.testing.assert_allclose(value, 2 * w[0] ** 2 + (w[1] ** 2 - 1) ** 2 / 8, rtol=1e-5)
        w = w - 0.1 * np.array([4 * w[0], (w[1] ** 2 - 1) * w[1] / 2])


def test_the_grid_finds_a_rate_and_a_given_rate_is_kept():
    best = trajectories(fnopt.momentum, {}, RAVINE, 80)["ravine"]
    given = trajectories(fnopt.momentum, {"learning_rate": 1e-4}, RAVINE, 80)["ravine"]
    assert best.values[-1] < 0.01 < given.values[-1]
    assert given.learning_rate == 1e-4
    again, _ = descend(fnopt.momentum(best.learning_rate), RAVINE["ravine"].f, (-4.2, -1.0), 80)
    np.testing.assert_allclose(best.points, again, rtol=1e-3, atol=1e-4)


def test_a_schedule_may_be_the_rate():
    rate = fnopt.schedules.constant_schedule(1e-4)
    found = trajectories(fnopt.sgd, {"learning_rate": rate}, RAVINE, 20)["ravine"]
    given = trajectories(fnopt.sgd, {"learning_rate": 1e-4}, RAVINE, 20)["ravine"]
    np.testing.assert_allclose(found.points, given.points, rtol=1e-6)
    assert np.isnan(found.learning_rate)


@pytest.mark.parametrize("name", ["polyak_sgd", "momo", "adahessian", "sophia"])
def test_an_optimizer_is_given_what_it_reads(name):
    path = trajectories(getattr(fnopt, name), {}, RAVINE, 60)["ravine"]
    assert path.values[-1] < path.values[0] / 2


def test_arrival_is_the_step_from_which_it_stays():
    points = np.zeros((5, 2))
    assert Trajectory(points, np.array([9, 0, 9, 0, 0.0]), 1.0).arrival(1) == 3
    assert Trajectory(points, np.array([9, 0, 9, 0, 2.0]), 1.0).arrival(1) is None
    assert Trajectory(points, np.array([9, 0, np.nan, 0, 0.0]), 1.0).arrival(1) == 3
    assert Trajectory(points, np.zeros(5), 1.0).arrival(1) == 0
    assert Trajectory(points, np.array([9, 0, 0, 0, np.nan]), 1.0).diverged


@pytest.mark.parametrize("last", [[np.nan, 1.0], [np.inf, 1.0], [1e30, 0.0]])
def test_a_diverging_path_stays_near_the_frame(last):
    points = np.array([[0.0, 0.0], [1.0, 0.0], last, [np.nan, np.nan]])
    seen = visible(points, SURFACES["ravine"])
    assert np.isfinite(seen).all()
    assert np.abs(seen).max() < 30
    np.testing.assert_array_equal(seen[:2], points[:2])
    assert len(seen) == (3 if last[0] == 1e30 else 2)


def test_command_draws_a_picture_and_a_film(tmp_path, capsys):
    png, gif = tmp_path / "new" / "a.png", tmp_path / "a.gif"
    words = ("--optimizers", "sgd,adam", "--surfaces", "ravine,saddle", "--steps", 12)
    assert landscape(*words, "--out", png, "--gif", gif, "--set", "adam.learning_rate=0.25") == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:5]] == ["ravine"] * 2 + ["saddle"] * 2
    assert said.count(" 0.25 ") == 2
    with Image.open(png) as picture, Image.open(gif) as film:
        assert picture.size[0] > 900
        assert 2 <= film.n_frames <= 13  # alike frames are merged
        assert film.info["loop"] == 0


def test_divergence_is_drawn_and_said(tmp_path, capsys):
    words = (
        "--optimizers",
        "sgd",
        "--surfaces",
        "beale",
        "--steps",
        9,
        "--out",
        tmp_path / "a.png",
    )
    assert landscape(*words, "--set", "sgd.learning_rate=1e6") == 0
    assert "diverges" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizers", "adm"], "unknown optimizer 'adm'; did you mean 'adam'"),
        (["--optimizers", "scale_by_adam"], "unknown optimizer 'scale_by_adam'"),
        (["--optimizers", ","], "--optimizers names none"),
        (["--surfaces", "ravin"], "unknown surface 'ravin'; did you mean 'ravine'"),
        (["--set", "adam.b1=1.5"], r"adam: b1 must be in \[0, 1\), got 1.5"),
        (["--set", "adam.beta=1"], "beta"),
        (["--set", "adamw.b1=0.5"], "'adamw' takes no part"),
        (["--set", "learning_rate"], "name=value"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--out", "a.jpg"], "--out must name a .png file, got a.jpg"),
        (["--gif", "a.png"], "--gif must name a .gif file, got a.png"),
    ],
)
def test_bad_input_is_named(words, message):
    with pytest.raises(CommandError, match=message):
        landscape(*words)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    words = ("--optimizers", "sgd", "--surfaces", "ravine", "--steps", 2)
    with pytest.raises(CommandError, match=r"cannot write .*a\.png"):
        landscape(*words, "--out", tmp_path / "file" / "a.png")
    with pytest.raises(CommandError, match=r"cannot write .*a\.gif"):
        landscape(*words, "--out", tmp_path / "a.png", "--gif", tmp_path / "file" / "a.gif")


def test_a_missing_matplotlib_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CommandError, match=r"pip install 'fnopt\[train\]'"):
        landscape("--steps", 2)


def test_every_optimizer_has_its_own_colour():
    names = ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "lion", "muon"]
    assert len(set(style.colors(names).values())) == len(names)
    assert style.colors(["adam"])["adam"] == style.colors(names)["adam"]
