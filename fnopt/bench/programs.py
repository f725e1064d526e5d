"""How many operations a compiled program makes on each device, read off its text.

The compiler's own count has a loop's body once. Here a loop counts as often as it turns, which the
compiler writes beside it, and a conditional counts as its dearest branch. After partitioning a
program is that of one device: what it counts is what each device does.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, NamedTuple

from fnopt.bench.arithmetic import DECOMPOSITION_FACTORS

LAPACK = {
    "potrf": "cholesky",
    "geqrf": "geqrf",
    "orgqr": "householder_product",
    "ungqr": "householder_product",
    "syevd": "eigh",
    "heevd": "eigh",
    "gesdd": "svd",
}
"""Routine -> the primitive that a CPU calls it for."""

COMPUTATION = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)"
)
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
TARGET = re.compile(r'custom_call_target="([^"]*)"')
NAME = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """One line of a computation: its operation, what follows the bracket, and the shapes there."""

    operation: str
    rest: str
    shape: tuple[int, ...]
    operands: list[tuple[int, ...]]


def compiled_operations(program: Any) -> float:
    """The matrix arithmetic of a step on each device: products, solves and decompositions.

    Those of decompositions are the estimates of `arithmetic`. Elementwise work is not counted.

    Args:
      program: what `jax.jit(f).lower(...).compile()` gives.

    Raises:
      ValueError: it calls what is not known here, or repeats work in a loop whose turns the
        compiler does not know.

    >>> import jax, jax.numpy as jnp
    >>> power = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y @ x, x))
    >>> compiled_operations(power.lower(jnp.ones((8, 8))).compile()) == 5 * 2 * 8**3
    True
    """
    computations, entry = _parsed(program.as_text())

    @functools.cache
    def count(name: str) -> float:
        return sum(map(one, computations[name]))

    def one(instruction: Instruction) -> float:
        operation, rest, *_ = instruction
        if operation == "conditional":
            listed = BRANCHES.search(rest)
            branches = NAME.findall(listed[1]) if listed else CALLED.findall(rest)
            return max(map(count, branches))
        inner = sum(map(count, CALLED.findall(rest)))
        if operation == "while" and inner:
            turns = TURNS.search(rest)
            if turns is None:
                raise ValueError(f"it is not known how often a loop turns: {rest}")
            return inner * int(turns[1])
        return inner + _own(instruction)

    return count(entry)


def _own(instruction: Instruction) -> float:
    operation, rest, shape, operands = instruction
    if operation == "dot":
        listed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
        contracted = [int(i) for i in listed[1].split(",") if i] if listed else []
        return 2.0 * math.prod(shape) * math.prod(operands[0][i] for i in contracted)
    if operation == "triangular-solve":
        return 1.0 * operands[0][-1] * math.prod(operands[1])
    if operation == "cholesky":
        return _decomposition("cholesky", operands[0])
    if operation == "convolution":
        raise ValueError(f"convolutions are not counted: {rest}")
    if operation != "custom-call":
        return 0.0
    target = TARGET.search(rest)
    routine = re.fullmatch(r"(?:lapack|blas)_[sdcz](\w+?)(?:_ffi)?", target[1]) if target else None
    if routine and routine[1] == "trsm":
        return 1.0 * operands[0][-1] * math.prod(operands[1])
    if routine and routine[1] in LAPACK:
        return _decomposition(LAPACK[routine[1]], operands[0])
    raise ValueError(f"a call that is not known: {target[1] if target else rest}")


def _decomposition(name: str, shape: tuple[int, ...]) -> float:
    *batch, m, n = shape
    return DECOMPOSITION_FACTORS[name] * math.prod(batch) * m * n * min(m, n)


def _parsed(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Computation -> its instructions; and the name of the first one to run."""
    computations: dict[str, list[Instruction]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    entry = name = ""
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            name = head[2]
            entry = name if head[1] else entry
            computations[name], shapes = [], {}
        elif (found := INSTRUCTION.match(line)) and name:
            own, kind, operation, rest = found.groups()
            shapes[own] = _shape(kind)
            operands = [shapes.get(x, ()) for x in NAME.findall(rest.split(")")[0])]
            computations[name].append(Instruction(operation, rest, shapes[own], operands))
    return computations, entry


def _shape(kind: str) -> tuple[int, ...]:
    """Of an array's type, as `f32[4,8]{1,0}`; of a tuple's that of its first array."""
    dimensions = re.search(r"\[([\d,]*)\]", kind)
    return tuple(int(n) for n in dimensions[1].split(",") if n) if dimensions else ()
