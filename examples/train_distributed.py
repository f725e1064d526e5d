"""Training in several processes: the digits' MLP or a character transformer, on a mesh of devices.

The batch is split over the mesh's axis "data" and the params over "model"; the optimizer's state
follows the params. What a step sees depends on the seed and the step alone, so that a run goes on
from its last checkpoint on any mesh and any number of processes, with the same losses.

    # two processes with four virtual devices each, on this machine; then once more, to go on
    python examples/train_distributed.py --processes 2 --devices-per-process 4 --mesh 2x4 \\
        --model transformer --steps 200 --checkpoints run

    # SLURM: one process a GPU; Open MPI alike with mpirun
    srun --nodes 2 --ntasks-per-node 4 --gpus-per-node 4 \\
        python examples/train_distributed.py --mesh 2x4 --checkpoints /shared/run

    # a TPU pod: the same command on every host
    gcloud compute tpus tpu-vm ssh NAME --worker=all \\
        --command "python examples/train_distributed.py --mesh 8x4 --checkpoints /shared/run"

    # any other launcher: three variables of the environment for each process
    JAX_COORDINATOR_ADDRESS=10.0.0.1:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 \\
        python examples/train_distributed.py --checkpoints /shared/run

All processes must see the folder of the checkpoints. When one of them dies or hangs, the others end
within 20 seconds and say so; the same command goes on from the last checkpoint. At SIGTERM, which
SLURM and Google Cloud send before they take a machine away, all save one more and end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import reached_preemption_sync_point
from jax.sharding import AxisType, Mesh, NamedSharding

import fnopt
from fnopt import mlp
from fnopt.bench import text
from fnopt.bench.models import Sizes, cross_entropy, predict, transformer
from fnopt.training.choices import default_rate, find_optimizer
from fnopt.training.data import load_digits
from fnopt.training.errors import CommandError
from fnopt.training.step import TrainState, make_train_step

HEARTBEAT = 10  # seconds without a sign of life, after which a process counts as dead
GRACE = 10  # seconds that processes are given to end by themselves
LOST = r"Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|[Bb]arrier"  # in errors' words
SAME = ("model", "optimizer", "rate", "batch", "seed", "zero")  # wherever a run goes on


# What is trained


class Task(NamedTuple):
    """A model and its data.

    Attributes:
      init: random key -> params.
      loss: (params, batch) -> the mean over the batch's rows.
      rows: how many there are to draw from.
      fields: numbers of rows (n,) -> an array (n, ...), for each part of a batch.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    rows: int
    fields: tuple[Callable[[np.ndarray], np.ndarray], ...]


def digits_mlp() -> Task:
    """64-256-128-10 on the embedded handwritten digits."""
    x, y = load_digits()[1:3]
    return Task(
        lambda key: mlp.init(key, [64, 256, 128, 10]),
        lambda params, batch: mlp.loss(params, *batch),
        len(x),
        (lambda rows: x[rows], lambda rows: y[rows]),
    )


def character_transformer() -> Task:
    """Two layers, 64 wide, that read the Python standard library; a row is a place in the text."""
    sizes = Sizes()
    tokens = text.standard_library().train

    def loss(params: Any, batch: Any) -> jax.Array:
        inputs, labels = text.following(batch[0])
        return cross_entropy(predict(params, inputs, heads=sizes.heads), labels)

    length = sizes.context + 1
    return Task(
        lambda key: transformer(key, sizes, dtype=jnp.float32),
        loss,
        len(tokens) - length + 1,
        (lambda starts: text.windows(tokens, starts, length),),
    )


TASKS = {"mlp": digits_mlp, "transformer": character_transformer}


# Training


def train(args: argparse.Namespace, devices: list[Any] | None = None) -> dict[int, float]:
    """Trains, from the last checkpoint on if there is one; each step's loss before it.

    The mesh is of all devices of all processes, if no others are given.
    """
    devices = jax.devices() if devices is None else devices
    shape = check(args, len(devices))
    mesh = jax.make_mesh(shape, ("data", "model"), (AxisType.Auto,) * 2, devices=devices)
    task, key, first = TASKS[args.model](), jax.random.key(args.seed), jax.process_index() == 0

    params = jax.tree.map(lambda x: split(x, mesh), jax.eval_shape(task.init, key))
    optimizer: Any = find_optimizer(args.optimizer)(args.rate)
    if args.zero:
        optimizer = fnopt.zero(optimizer, fnopt.zero_plan(params, "data"))

    def fresh(key: jax.Array) -> TrainState:
        params = task.init(key)
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    everywhere: Any = NamedSharding(mesh, jax.P())
    places = TrainState(
        jax.tree.map(lambda x: x.sharding, params),
        fnopt.state_shardings(optimizer, params),
        everywhere,
    )
    step = jax.jit(
        make_train_step(task.loss, optimizer, key=key).unjitted,
        donate_argnums=0,
        out_shardings=(places, everywhere),
    )
    losses = {}
    with checkpoints(args.checkpoints) as manager:
        state = restore(manager, jax.tree.map(placed, jax.eval_shape(fresh, key), places), args)
        if state is None:
            state = jax.jit(fresh, out_shardings=places)(key)
        elif first:
            print(f"goes on from step {state.step}", file=sys.stderr)
        for i in range(int(state.step), args.steps):
            rows = np.random.default_rng([args.seed, i]).integers(0, task.rows, args.batch)
            batch = make_batch(task, rows, NamedSharding(mesh, jax.P("data")))
            state, metrics = step(state, batch)
            losses[i], done = float(metrics["loss"]), i + 1
            if first:
                tell(f"{i} {losses[i]:.8g}", args.log)
            stopped = reached_preemption_sync_point(done)  # SIGTERM, and all are at this step
            if manager and (done % args.every == 0 or done == args.steps or stopped):
                save(manager, done, state, args)
            if stopped:
                raise CommandError(f"stopped by SIGTERM; {last_checkpoint(args)}")
    return losses


def split(x: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """A param in its place: its last axis is split over "model" where that divides it."""
    divides = x.ndim > 0 and x.shape[-1] % mesh.shape["model"] == 0
    spec = jax.P(*[None] * (x.ndim - 1), "model") if divides else jax.P()
    return placed(x, NamedSharding(mesh, spec))


def placed(x: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def make_batch(task: Task, rows: np.ndarray, place: NamedSharding) -> tuple[jax.Array, ...]:
    """The batch of these rows; each process makes those of its own devices."""

    def made(field: Callable[[np.ndarray], np.ndarray]) -> jax.Array:
        shape = (len(rows), *field(rows[:1]).shape[1:])

        def part(index: Any) -> np.ndarray:
            return field(rows[index[0]])

        return jax.make_array_from_callback(shape, place, part)

    return tuple(made(field) for field in task.fields)


def tell(line: str, log: Path | None) -> None:
    """Prints a line, and adds it to a file."""
    print(line, flush=True)
    if log is not None:
        with log.open("a") as file:
            file.write(line + "\n")


# Checkpoints


@contextlib.contextmanager
def checkpoints(folder: Path | None) -> Any:
    """Orbax's manager of a folder, or None; the last two are kept, and no half of one counts."""
    if folder is None:
        yield None
        return
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # orbax tells its every step
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(2),
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
    )
    manager = ocp.CheckpointManager(folder.resolve(), options=options)
    yield manager
    manager.close()  # not after an error, when it would wait for processes that are gone


def save(manager: Any, step: int, state: TrainState, args: argparse.Namespace) -> None:
    """Writes the state's arrays under their names; each process its own parts."""
    import orbax.checkpoint as ocp

    arrays = ocp.args.StandardSave(fnopt.named_arrays(state))
    run = ocp.args.JsonSave({name: getattr(args, name) for name in SAME})
    manager.save(step, args=ocp.args.Composite(state=arrays, run=run), force=True)


def restore(manager: Any, like: TrainState, args: argparse.Namespace) -> TrainState | None:
    """The state of the last checkpoint, each part in its place; None if there is none."""
    if manager is None or manager.latest_step() is None:
        return None
    import orbax.checkpoint as ocp

    run = manager.restore(None, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run
    for name in SAME:
        if run[name] != getattr(args, name):
            raise CommandError(
                f"the checkpoints in {args.checkpoints} are of --{name} {run[name]}, "
                f"not {getattr(args, name)}"
            )
    arrays = ocp.args.StandardRestore(fnopt.named_arrays(like))
    return fnopt.restore(like, manager.restore(None, args=ocp.args.Composite(state=arrays)).state)


def last_checkpoint(args: argparse.Namespace) -> str:
    """From where the same command goes on, in words."""
    names = [] if args.checkpoints is None else [p.name for p in args.checkpoints.glob("*")]
    steps = [int(name) for name in names if name.isdigit()]  # others are not finished
    if not steps:
        return "there is no checkpoint to go on from"
    return f"the same command goes on from the checkpoint of step {max(steps)}"


# Processes


def connect() -> None:
    """Joins the other processes, if the environment says that there are any."""
    given: dict[str, Any] = {}
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        try:
            given["num_processes"] = int(os.environ["JAX_NUM_PROCESSES"])
            given["process_id"] = int(os.environ["JAX_PROCESS_ID"])
        except (KeyError, ValueError) as error:
            raise CommandError(
                f"JAX_COORDINATOR_ADDRESS needs JAX_NUM_PROCESSES and JAX_PROCESS_ID: {error}"
            ) from None
    try:  # it knows SLURM, Open MPI and TPU pods
        jax.distributed.initialize(
            **given, heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=GRACE
        )
    except ValueError as error:
        if given or "coordinator_address should be defined" not in str(error):
            raise


def launch(argv: list[str], processes: int, devices: int, args: argparse.Namespace) -> None:
    """Starts this file in several processes on this machine, and ends all when one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_COORDINATOR_BIND_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(processes),
        "XLA_FLAGS": flags.strip(),
    }
    command = [sys.executable, __file__, *argv]
    children: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    try:
        for rank in range(processes):
            children.append(subprocess.Popen(command, env=env | {"JAX_PROCESS_ID": str(rank)}))
            print(f"process {rank} of {processes} has pid {children[-1].pid}", file=sys.stderr)
        running = True
        while running:
            running = any(child.poll() is None for child in children)
            failed = [
                f"process {rank} of {processes} {ending(child.returncode)}"
                for rank, child in enumerate(children)
                if child.returncode
            ]
            if failed:
                stop(children)
                raise CommandError(f"{', '.join(failed)}; all are stopped; {last_checkpoint(args)}")
            time.sleep(0.1)
    finally:
        stop(children)
        signal.signal(signal.SIGTERM, before)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code == -signal.SIGABRT:
        return "ended itself by SIGABRT, as JAX does when another one is gone or hangs"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def stop(children: list[subprocess.Popen[bytes]]) -> None:
    """Ends what still runs: asked first, and killed after GRACE seconds."""
    for child in children:
        child.terminate()
    end = time.monotonic() + GRACE
    for child in children:
        try:
            child.wait(max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def run(args: argparse.Namespace) -> dict[int, float]:
    """Trains as one of the processes there are, and ends if another one is gone."""
    connect()
    try:
        return train(args)
    except Exception as error:
        count, rank = jax.process_count(), jax.process_index()
        if count == 1 or isinstance(error, CommandError):
            raise
        if re.search(LOST, str(error)):
            lost = f"process {1 - rank}" if count == 2 else "another one"
            say = f"process {rank} of {count} has lost {lost}; {last_checkpoint(args)}\n{error}"
        else:
            say = f"process {rank} of {count} fails\n{traceback.format_exc()}"
        print(say, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)  # the usual way out waits for the others


def check(args: argparse.Namespace, devices: int) -> tuple[int, int]:
    """The mesh's shape; CommandError if the devices do not fit it, or the batch does not."""
    data, model = args.mesh or (devices, 1)
    if data * model != devices:
        raise CommandError(f"--mesh {data}x{model} is of {data * model} devices, not {devices}")
    if args.batch % data:
        raise CommandError(f"--batch {args.batch} does not divide by {data}, the data axis' size")
    return data, model


def mesh_shape(word: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", word)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected data x model, as 2x4, got {word!r}")
    return int(found[1]), int(found[2])


def positive(word: str) -> int:
    if int(word) < 1:
        raise ValueError(word)
    return int(word)


def options(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and those words that are the processes' own."""
    launcher = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = launcher.add_argument
    add("--processes", type=positive, help="start so many on this machine")
    add("--devices-per-process", type=positive, default=1, help="virtual CPUs")
    rest = launcher.parse_known_args(argv)[1]
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[launcher],
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", choices=TASKS, default="mlp")
    add("--mesh", type=mesh_shape, help="data x model, as 2x4; all x 1 by default")
    add("--steps", type=positive, default=100)
    add("--batch", type=positive, default=64, help="rows, of all processes")
    add("--seed", type=int, default=0)
    add("--optimizer", default="adamw", help="a factory of fnopt")
    add("--rate", type=float, help="the learning rate")
    add("--zero", action="store_true", help="split the state over data as well")
    add("--checkpoints", type=Path, metavar="FOLDER")
    add("--every", type=positive, default=10, help="steps between checkpoints")
    add("--log", type=Path, metavar="FILE", help="for the losses, too")
    args = parser.parse_args(argv)
    find_optimizer(args.optimizer)
    if args.rate is None:
        args.rate = default_rate(args.optimizer)
    return args, rest


def main(argv: list[str] | None = None) -> dict[int, float]:
    try:
        args, rest = options(argv)
        if args.processes is None:
            return run(args)
        check(args, args.processes * args.devices_per_process)
        launch(rest, args.processes, args.devices_per_process, args)
        return {}
    except CommandError as error:
        raise SystemExit(f"{Path(__file__).name}: {error}") from None


if __name__ == "__main__":
    main()
