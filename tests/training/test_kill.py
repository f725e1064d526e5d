"""Real processes: SIGKILL at any moment, Ctrl-C, and a broken pipe."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import forks
import jax
import pytest

SMALL = ["--hidden", "16", "--epochs", "12", "--batch-size", "256", "--seed", "3"]


CACHE = {
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""Every process compiles the same programs."""


@pytest.fixture(scope="module")
def server():
    """Starts the command without the time for its imports."""
    preload = ["fnopt.training.command", "orbax.checkpoint", "rich.progress", "rich.table"]
    preload += ["matplotlib.figure", "matplotlib.ticker", "sklearn.datasets"]
    server = forks.Server("fnopt.cli:main", [*preload, "sklearn.model_selection"], CACHE)
    yield server
    server.close()


@pytest.fixture(scope="module")
def begin(server, tmp_path_factory):
    """Starts `fnopt train` with these words; what is left of it ends with the tests."""
    started, said = [], tmp_path_factory.mktemp("said")

    def run(*words, lines=None, folder=None):
        out, err = (said / f"{len(started)}.{name}" for name in ("out", "err"))
        words = ["train", *map(str, words)]
        started.append(server.start(words, out, err, lines=lines, folder=folder))
        return started[-1]

    yield run
    for process in started:
        process.end()


def real(*words):
    """A new interpreter, as the shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "fnopt", "train", *words],
        env=os.environ | CACHE | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rows(folder):
    """The whole lines of epochs in metrics.csv."""
    file = folder / "metrics.csv"
    return max(0, file.read_text().count("\n") - 1) if file.exists() else 0


def wait_until(happened, process):
    """Until then, which must come before the process ends."""
    end = time.monotonic() + forks.LONG
    while not happened():
        assert process.poll() is None, process.said()
        assert time.monotonic() < end, process.said()
        time.sleep(0.005)


def kill_after(process, happened, delay):
    """SIGKILL `delay` seconds after something has happened."""
    wait_until(happened, process)
    time.sleep(delay)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.said()


def finish(process):
    assert process.wait() == 0, process.said()
    assert process.err.read_text() == ""


def numbers(folder):
    """metrics.csv without the seconds."""
    lines = (folder / "metrics.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]


def digest(folder):
    return json.loads((folder / "summary.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def whole(begin, tmp_path_factory):
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    finish(begin(*SMALL, "--out", folder))
    assert len(numbers(folder)) == 13
    return folder


@pytest.mark.parametrize("moments", [(0, 1), (2, 5)])
def test_killed_runs_end_with_the_same_bits(begin, whole, tmp_path, moments):
    """A process stands still before its last epoch, so that it is killed before it ends."""
    rng = random.Random(moments[1])
    folder = tmp_path / "killed"
    words = [*SMALL, "--out", folder]
    for epochs in moments:
        process = begin(*words, lines=11 - rows(folder))

        def written():
            return (folder / "summary.json").exists() and rows(folder) >= epochs

        kill_after(process, written, rng.uniform(0, 0.1))
        words = ["--resume", folder]
    finish(begin(*words))
    assert digest(folder) == digest(whole)
    assert numbers(folder) == numbers(whole)


def test_a_killed_comparison_goes_on(begin, tmp_path):
    words = [*SMALL[:2], "--epochs", "4", "--batch-size", "256", "--compare", "sgd,adam"]
    finish(begin(*words, "--out", tmp_path / "whole"))
    process = begin(*words, "--out", tmp_path / "killed", lines=7)
    kill_after(process, lambda: rows(tmp_path / "killed" / "adam") >= 1, 0.01)
    finish(begin("--resume", tmp_path / "killed"))
    for name in ("sgd", "adam"):
        assert digest(tmp_path / "killed" / name) == digest(tmp_path / "whole" / name)
        assert numbers(tmp_path / "killed" / name) == numbers(tmp_path / "whole" / name)


def test_ctrl_c_ends_with_130_and_resumes(begin, tmp_path):
    folder = tmp_path / "a"
    process = begin("--hidden", "16", "--epochs", "5000", "--out", folder)
    wait_until(lambda: rows(folder) >= 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    said = process.err.read_text().strip()
    assert said == f"fnopt train: interrupted; go on with: fnopt train --resume {folder}"


def test_a_reader_that_leaves_ends_the_run_quietly(tmp_path):
    """As `fnopt train | head -1`."""
    process = real("--hidden", "8", "--epochs", "5000", "--out", tmp_path / "a")
    assert process.stdout.readline().startswith("epoch 1/5000")
    process.stdout.close()
    assert process.wait(timeout=forks.LONG) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_the_default_run_is_right(begin, tmp_path):
    """No argument: an MLP by Adam on the digits, at least 97% on the test set."""
    finish(begin(folder=tmp_path))
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["test_accuracy"] >= 0.97
