"""`fnopt memory`: what a training step needs in memory, before anything is allocated.

With a mesh also what each of its devices holds and sends.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import fnopt
from fnopt.memory import meshes, shapes
from fnopt.memory.collectives import Collective, collectives
from fnopt.memory.plans import Plan, plan
from fnopt.training import choices
from fnopt.training.errors import CommandError
from fnopt.training.options import checked
from fnopt.training.settings import DTYPES

REMEDIES = ("master_weights", "split_master", "kahan")
"""Wrappers for params of low precision, by their names in `fnopt`."""

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
MOST = 10**15  # a few seconds
HEAD = ("", "dtype", "entries", "bytes/parameter")
NOTE = "Activations, updates and other temporaries are not in it."
SENT = "each device sends in a step"
RING = "By rings; activations of tensor parallelism and sums of single numbers are not counted."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--params", metavar="N", type=_count, help="a transformer of so many: 7e9, 124M"
    )
    model.add_argument("--shapes", metavar="FILE", type=Path, help="a real model's shapes")
    add = parser.add_argument
    add("--optimizer", metavar="NAME", default="adamw", help="as for fnopt train (%(default)s)")
    add(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a hyperparameter, as for fnopt train; may be repeated",
    )
    add("--remedy", choices=REMEDIES, help="against lost updates of params of low precision")
    add("--dtype", choices=DTYPES, help="of the params (float32, or the file's)")
    add("--gradients-dtype", choices=DTYPES, help="of the gradients (the params')")
    add(
        "--mesh",
        metavar="AXIS=N,AXIS=N",
        type=_mesh,
        help="devices that need not exist: data=64,model=8; axes data, fsdp and model",
    )
    add("--zero", metavar="AXIS", help="of the mesh, over which the state is split too (none)")


EPILOG = f"""{NOTE}

--params counts a transformer of that size: its width a multiple of 128, about 128 times the number
of its layers; a layer of six matrices, biases and norms; 5% or more of it the embedding.

--shapes FILE is one of
  a .safetensors file, of which the header alone is read, or a folder of them
  JSON of {{name: shape}} or {{name: [shape, dtype]}}
  a folder of fnopt train, or an orbax checkpoint, of which the metadata alone is read

--mesh adds what one device holds, and the bytes that it sends in a step. Its axes are
  model   splits, of a leaf of two or more axes, the longest that it divides, else the leaf is whole
  fsdp    splits, of any leaf, the first axis that it divides and that is whole yet
  data    splits no params
The batch is split over data and fsdp. Gradients and state are split as their params are; with
--zero data the state is split over data too, as by fnopt.zero.
{RING}

examples:
  fnopt memory --params 7e9 --optimizer adamw_8bit
  fnopt memory --params 7e9 --dtype bfloat16 --optimizer lion --set b1=0.95
  fnopt memory --shapes model.safetensors --gradients-dtype float32 --optimizer adafactor
  fnopt memory --mesh data=64,model=8 --params 70e9 --optimizer muon
"""


def _parameters(text: str) -> int:
    unit = UNITS.get(text[-1:].upper(), 1)
    number = float(text if unit == 1 else text[:-1]) * unit
    if not shapes.LEAST <= number <= MOST or number != int(number):
        raise ValueError
    return int(number)


def _mesh(text: str) -> dict[str, int]:
    try:
        return meshes.sizes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_count = checked(f"a whole number from {shapes.LEAST:,} to 1e15, as 7e9 or 124M", _parameters)


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints the table.

    Raises:
      CommandError: an unknown optimizer, a hyperparameter that is out of range, a file without
        shapes, or params that the optimizer or the remedy does not take.
    """
    optimizer = choices.build(args.optimizer, args.set, total_steps=1000)
    dtype = None if args.dtype is None else jnp.dtype(args.dtype)
    if args.shapes is not None:
        found = shapes.read(args.shapes.expanduser(), dtype)
    else:
        found = shapes.transformer(args.params, dtype or jnp.dtype("float32"))
    remedy = None if args.remedy is None else getattr(fnopt, args.remedy, None)
    if args.remedy is not None and remedy is None:
        raise CommandError(f"--remedy {args.remedy}: this version of fnopt has none of that name")
    params, told = found.params, ""
    if args.mesh is not None:
        params = meshes.split(params, meshes.abstract_mesh(args.mesh))
        told = meshes.words(params)
    if args.zero is not None and args.zero not in (args.mesh or ()):
        axes = "there is no --mesh" if args.mesh is None else f"--mesh has {', '.join(args.mesh)}"
        raise CommandError(f"--zero {args.zero}: no axis of the mesh; {axes}")
    words = (optimizer, params, args.gradients_dtype, remedy, args.zero)
    wide = any(x.dtype in (jnp.float64, jnp.complex128) for x in jax.tree.leaves(params))
    with jax.enable_x64(wide or jax.config.read("jax_enable_x64")):
        try:
            made = plan(*words)
            if args.mesh is not None:
                held = plan(*words, per_device=True)
                sent = collectives(*words)
        except (TypeError, ValueError) as error:
            raise CommandError(str(error)) from None
    if args.remedy is not None and args.remedy not in made.parts:
        raise CommandError(f"--remedy {args.remedy} keeps nothing for such params; lower --dtype")
    print(repr(optimizer if remedy is None else remedy(optimizer)))
    print(f"{made.parameters:,} parameters: {found.words}")
    if args.mesh is None:
        print()
        show(*lines(made))
    else:
        print(told, end="\n\n")
        show(*lines(made, held))
        show(*lines_sent(sent))
    print(NOTE if args.mesh is None else f"{NOTE}\n{RING}")
    return 0


def lines(made: Plan, held: Plan | None = None) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table's head and its lines: each part, what it is made of, and the total.

    Args:
      made: the whole model's.
      held: one device's, where there is a mesh.
    """
    units = [_unit(one.bytes) for one in (made, held) if one is not None]
    words = (word + "/device" * i for i, (word, _) in enumerate(units))

    def line(name: str, dtype: str, count: str, *needed: int) -> tuple[str, ...]:
        numbers = (f"{size / unit:,.2f}" for size, (_, unit) in zip(needed, units))
        return (name, dtype, count, f"{needed[0] / made.parameters:.3f}", *numbers)

    body = []
    others = made if held is None else held
    for part, size in made.parts.items():
        pairs = [(row, other) for row, other in zip(made.rows, others.rows) if row.part == part]
        own = [(row.dtype, f"{row.entries:,}", row.bytes, other.bytes) for row, other in pairs]
        if len(pairs) == 1:
            name = pairs[0][0].name
            body.append(line(f"{part}: {name}" if name else part, *own[0]))
            continue
        body.append(line(part, "", "", size, others.parts[part]))
        body += [line(f"  {row.name}", *cells) for (row, _), cells in zip(pairs, own)]
    body.append(line("total", "", "", made.bytes, others.bytes))
    return (*HEAD, *words), body


def lines_sent(sent: Sequence[Collective]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the lines of the table of collectives."""
    total = sum(one.bytes for one in sent)
    word, unit = _unit(total)
    body = [
        (f"{one.what}: {one.kind}", " and ".join(one.axes), f"{one.bytes / unit:,.2f}")
        for one in sent
    ]
    return (SENT, "over", word), [*body, ("total", "", f"{total / unit:,.2f}")]


def _unit(size: int) -> tuple[str, int]:
    if size >= 2**30:
        return "GiB", 2**30
    return ("MiB", 2**20) if size >= 2**20 else ("KiB", 2**10)


def show(head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """Prints a table, by rich where it is installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print("\n".join(plain([head, *body])), end="\n\n")
        return
    console: Any = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i > 1 else "left", no_wrap=True)
    for cells in body:
        whole = not cells[0].startswith(" ")
        last = cells[0] == "total"
        table.add_row(*cells, style="bold" if last else None if whole else "dim")
    console.print(table)


def plain(table: Sequence[Sequence[str]]) -> list[str]:
    """The table's lines as text, numbers on the right."""
    widths = [max(len(cells[i]) for cells in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i > 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        ).rstrip()
        for cells in table
    ]
