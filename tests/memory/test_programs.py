"""The plan for each device against the compiler's count: 7 billion parameters, 64 devices.

Run as a script, this file prints what the compiler says of each step, a line of JSON for each; the
tests run it so, because the devices are made by XLA_FLAGS of a process of its own. Nothing is
allocated: the arguments are shapes with shardings. All three steps are compiled, AdamW's and
Muon's leaf by leaf, that of 8 bits on stacked layers.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import fnopt
from fnopt.leaves import nbytes
from fnopt.memory import meshes, shapes
from fnopt.memory.collectives import collectives
from fnopt.memory.plans import plan

ROOT = Path(__file__).parents[2]


def stacked(params):
    """The layers as one, each of their leaves with the number of layers in front."""
    layers = [x for name, x in params.items() if name.startswith("layer_")]
    rest = {name: x for name, x in params.items() if not name.startswith("layer_")}

    def whole(x):
        return jax.ShapeDtypeStruct((len(layers), *x.shape), x.dtype)

    return rest | {"layers": jax.tree.map(whole, layers[0])}


CASES = {
    "adamw": (AxisType.Auto, fnopt.adamw(1e-3), lambda params: params),
    "adamw in zero": (AxisType.Auto, fnopt.adamw(1e-3), stacked),
    # leaf by leaf the compiler takes most of a minute
    "adamw_8bit": (AxisType.Auto, fnopt.adamw_8bit(1e-3), stacked),
    # of explicit axes, so that matrices are gathered where fnopt says, not where the compiler does
    "muon": (AxisType.Explicit, fnopt.muon(0.02), lambda params: params),
}


def counted(kind, optimizer, arranged, zero):
    """The compiler's bytes of a device, and the plan's."""
    mesh = jax.make_mesh((8, 8), ("data", "model"), axis_types=(kind, kind))
    params = meshes.split(arranged(shapes.transformer(7 * 10**9).params), mesh)
    parts = plan(optimizer, params, zero=zero, per_device=True).parts
    sent = collectives(optimizer, params, zero=zero)
    if zero is not None:
        optimizer = fnopt.zero(optimizer, fnopt.zero_plan(params, zero))
    state = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        optimizer.init(params),
        fnopt.state_shardings(optimizer, params),
    )

    def step(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return fnopt.apply_updates(params, updates), state

    program = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    memory = program.memory_analysis()
    return {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "donated": memory.alias_size_in_bytes,
        "gathered": sum(map(nbytes, gathered(program.as_text()))),
        "parts": parts,
        "sent": {f"{x.what}: {x.kind}": x.bytes for x in sent},
    }


def gathered(text, kind="all-gather"):
    """What the collective operations of one kind put out, as a program's text has it."""
    for types in re.findall(rf"= ([^=]*?) {kind}(?:-start)?\(", text):
        for shape in re.findall(r"f32\[([\d,]*)\]", types):
            yield jax.ShapeDtypeStruct([int(n) for n in shape.split(",") if n], np.float32)


@pytest.fixture(scope="module")
def compiled():
    """What this file prints, run as a script, by optimizer."""
    count = r"--xla_force_host_platform_device_count=\d+"
    flags = re.sub(count, "", os.environ.get("XLA_FLAGS", ""))
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=64".strip(),
    }
    done = subprocess.run(
        [sys.executable, __file__],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = map(json.loads, done.stdout.splitlines())
    return {one["name"]: one for one in found}


@pytest.mark.parametrize("name", CASES)
def test_a_device_holds_what_the_plan_says(name, compiled):
    found = compiled[name]
    assert found["parts"].keys() == {"params", "gradients", "state"}
    assert found["arguments"] == pytest.approx(sum(found["parts"].values()), rel=0.05)
    kept = found["parts"]["params"] + found["parts"]["state"]
    assert found["outputs"] == pytest.approx(kept, rel=0.05)
    assert found["donated"] == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("name", CASES)
def test_a_device_gathers_what_the_plan_says(name, compiled):
    found = compiled[name]
    assert ("optimizer: all-gather" in found["sent"]) == (name == "muon")
    assert ("updates: all-gather" in found["sent"]) == (name == "adamw in zero")
    sent = sum(size for name, size in found["sent"].items() if name.endswith("all-gather"))
    assert found["gathered"] * 7 / 8 == pytest.approx(sent, rel=0.05)


if __name__ == "__main__":
    for name in CASES:
        print(
            json.dumps(
                {"name": name}
                | counted(*CASES[name], "data" if name.endswith(" in zero") else None)
            ),
            flush=True,
        )
