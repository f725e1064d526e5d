"""examples/train_distributed.py: the same losses on every mesh, and after a process was killed."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import forks
import jax
import pytest

from fnopt.training.errors import CommandError

SCRIPT = Path(__file__).parents[2] / "examples" / "train_distributed.py"
LONG = forks.LONG
ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("example_train_distributed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CACHE = {
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""Every process compiles the same programs."""


@pytest.fixture(scope="module")
def server():
    """Starts the script without the time for its imports; those that it starts, too."""
    preload = ["orbax.checkpoint", "sklearn.datasets", "fnopt.bench.text"]
    server = forks.Server(f"{SCRIPT}:main", preload, CACHE, launches=True)
    yield server
    server.close()


@pytest.fixture
def start(server, tmp_path):
    """Starts the script; whatever is left of it ends with the test."""
    started = []

    def run(*words, **more):
        out = tmp_path / f"{len(started)}.txt"
        started.append(server.start(list(map(str, words)), out, environment=more))
        return started[-1]

    yield run
    for process in started:
        process.end()


def words_of(**options):
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
    ]


def trained(script, count=8, **options):
    """The losses of a run in this process, on the first devices."""
    args, _ = script.options(words_of(**options))
    return script.train(args, jax.devices()[:count])


def read(log):
    """The losses in a log, by step."""
    pairs = (line.split() for line in log.read_text().splitlines())
    return {int(step): float(loss) for step, loss in pairs}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=0, abs=1e-5)


def wait_for(path, process):
    end = time.monotonic() + LONG
    while not path.exists():
        assert process.poll() is None, process.out.read_text()
        assert time.monotonic() < end, process.out.read_text()
        time.sleep(0.01)


def ended(process):
    """The exit code and the words of a process that ends by itself."""
    code = process.wait(LONG)
    return code, process.out.read_text()


def test_two_processes_train_as_one_device_does(script, monkeypatch, tmp_path):
    """They are started as from a shell, imports and all."""
    run = {"steps": 6, "every": 3, "batch": 32}
    two = {"processes": 2, "devices-per-process": 4, "mesh": "2x4"}
    folder, log = tmp_path / "run", tmp_path / "log"
    for name, value in CACHE.items():
        monkeypatch.setenv(name, value)
    script.main(words_of(**run, **two, checkpoints=folder, log=log))
    whole = trained(script, 1, **run | {"steps": 9})
    assert_same(read(log), {i: whole[i] for i in range(6)})
    assert {path.name for path in folder.iterdir()} == {"3", "6"}
    # one process goes on from what two have written
    rest = trained(script, 8, **run | {"steps": 9}, mesh="4x2", checkpoints=folder)
    assert_same(rest, {i: whole[i] for i in range(6, 9)})


@pytest.fixture(scope="module", params=["mlp", "transformer", "zero"])
def saved(request, script, tmp_path_factory):
    """A run on 2 x 4: its options, its losses, and its checkpoints after 3 and 6 steps."""
    folder = tmp_path_factory.mktemp(request.param)
    run = {"model": request.param, "batch": 8, "every": 3, "steps": 6}
    if request.param == "zero":
        run |= {"model": "mlp", "zero": True}
    return run, trained(script, mesh="2x4", checkpoints=folder, **run), folder


@pytest.mark.parametrize("mesh", ["1x8", "4x2", "1x1"])
def test_a_checkpoint_goes_on_elsewhere(script, saved, mesh, tmp_path):
    run, losses, folder = saved
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    # the second was interrupted
    (tmp_path / "6").rename(tmp_path / "6.orbax-checkpoint-tmp")
    count = 1 if mesh == "1x1" else 8
    rest = trained(script, count, mesh=mesh, checkpoints=tmp_path, **run)
    assert_same(rest, {i: losses[i] for i in range(3, 6)})


def test_one_process_killed_ends_all_and_the_command_goes_on(script, start, tmp_path):
    run = {"model": "transformer", "batch": 4, "every": 2}
    two = {"processes": 2, "devices-per-process": 2, "mesh": "2x2"}
    folder, log = tmp_path / "run", tmp_path / "log"
    words = words_of(**run, **two, checkpoints=folder, log=log)
    process = start(*words, "--steps", ENDLESS)
    wait_for(folder / "4", process)
    pids = re.findall(r"process \d of 2 has pid (\d+)", process.out.read_text())
    os.kill(int(pids[1]), signal.SIGKILL)
    code, said = ended(process)
    assert code == 1
    assert "process 1 of 2 was killed by SIGKILL" in said
    last = int(re.findall(r"goes on from the checkpoint of step (\d+)\n", said)[-1])
    assert last == max(int(path.name) for path in folder.iterdir() if path.name.isdigit()) >= 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)

    before = read(log)
    log.unlink()
    code, said = ended(start(*words, "--steps", last + 3))
    assert code == 0, said
    assert f"goes on from step {last}\n" in said
    whole = trained(script, 4, mesh="2x2", **run, steps=last + 3)
    assert_same(read(log), {i: whole[i] for i in range(last, last + 3)})
    assert_same({i: before[i] for i in range(last)}, {i: whole[i] for i in range(last)})


@pytest.fixture
def pair(start, tmp_path):
    """Two processes that nobody watches, after their first checkpoint."""
    with socket.socket() as taken:  # until the end, so that nobody else is given this port
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        yield both_of(start, tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")


def both_of(start, tmp_path, address):
    common = {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_COORDINATOR_BIND_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
    }
    words = words_of(steps=ENDLESS, every=5, checkpoints=tmp_path / "run")
    both = [start(*words, **common, JAX_PROCESS_ID=str(rank)) for rank in range(2)]
    wait_for(tmp_path / "run" / "5", both[0])
    return both


def test_without_a_launcher_the_other_ends_by_itself(pair):
    pair[1].kill()
    code, said = ended(pair[0])
    assert code == 1
    assert "process 0 of 2 has lost process 1; the same command goes on from the" in said


def test_sigterm_to_one_saves_and_ends_all(pair, tmp_path):
    pair[1].terminate()
    for process in pair:
        code, said = ended(process)
        assert code == 1
        last = max(int(path.name) for path in (tmp_path / "run").iterdir())
        assert f"by SIGTERM; the same command goes on from the checkpoint of step {last}\n" in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--processes 2 --devices-per-process 4 --mesh 3x2", "--mesh 3x2 is of 6 devices, not 8"),
        ("--processes 2 --batch 33", "--batch 33 does not divide by 2"),
        ("--optimizer adamw8", "unknown optimizer 'adamw8'; did you mean"),
    ],
)
def test_mistakes_are_named_before_anything_starts(script, words, complaint):
    with pytest.raises(SystemExit, match=complaint):
        script.main(words.split())


@pytest.mark.parametrize("mesh", ["8", "0x8", "2x4x1", "axb"])
def test_a_mesh_has_two_numbers(script, mesh, capsys):
    with pytest.raises(SystemExit):
        script.main(["--mesh", mesh])
    assert "expected data x model, as 2x4" in capsys.readouterr().err


def test_ranks_come_with_the_address(script, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    with pytest.raises(SystemExit, match="needs JAX_NUM_PROCESSES and JAX_PROCESS_ID"):
        script.main([])


def test_another_run_is_not_continued(script, tmp_path):
    run = {"steps": 1, "checkpoints": tmp_path / "run"}
    trained(script, 1, **run)
    with pytest.raises(CommandError, match="are of --seed 0, not 1"):
        trained(script, 1, **run, seed=1)
