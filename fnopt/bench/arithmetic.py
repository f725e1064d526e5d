"""How many operations a step makes, counted in the traced program: products, roots, decompositions.

The compiler counts a loop's body once and a branch at its dearest. Here a loop counts as often as
it turns, and what a branch adds to the cheapest one is counted by itself: it is made at times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

Costs = dict[str, Callable[[Any], float]]


class Arithmetic(NamedTuple):
    """Floating-point operations of one step, of one sort.

    Attributes:
      always: of every step.
      due: what a step makes besides when all of its branches are due.
    """

    always: float
    due: float

    def amortized(self, every: float) -> float:
        """Operations of the mean step, where branches are due in one of `every`."""
        return self.always + self.due / every


def operations(f: Callable[..., Any], *arguments: Any) -> tuple[Arithmetic, Arithmetic]:
    """Counts the matrix arithmetic of f, on arrays or shapes; elementwise work is not counted.

    Returns:
      Of products and solves, and of decompositions, which no machine makes at the same rate.
    """
    program = jax.make_jaxpr(f)(*arguments).jaxpr
    return _count(program, PRODUCTS), _count(program, DECOMPOSITIONS)


def _count(program: Any, costs: Costs) -> Arithmetic:
    always = due = 0.0
    for equation in program.eqns:
        one = _of(equation, costs)
        always, due = always + one.always, due + one.due
    return Arithmetic(always, due)


def _of(equation: Any, costs: Costs) -> Arithmetic:
    name, given = equation.primitive.name, equation.params
    if name == "cond":
        branches = [_count(branch.jaxpr, costs) for branch in given["branches"]]
        if given.get("branches_platforms") is not None:
            return branches[0]
        totals = sorted(branch.always for branch in branches)
        return Arithmetic(totals[0], totals[-1] - totals[0] + max(b.due for b in branches))
    if name in costs:
        return Arithmetic(costs[name](equation), 0.0)
    times = given.get("length", 1) if name == "scan" else 1
    inner = [_count(program, costs) for program in _programs(given)]
    return Arithmetic(times * sum(i.always for i in inner), times * sum(i.due for i in inner))


def _programs(given: Any) -> Iterator[Any]:
    """The programs inside an equation: of a call, a loop or a derivative rule."""
    for value in given.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            program = getattr(one, "jaxpr", one)
            if hasattr(program, "eqns"):
                yield program


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2.0 * math.prod(out) * math.prod(left[i] for i in contracted)


def _square(factor: float) -> Callable[[Any], float]:
    def count(equation: Any) -> float:
        *batch, m, n = equation.invars[0].aval.shape
        return factor * math.prod(batch) * m * n * min(m, n)

    return count


def _solve(equation: Any) -> float:
    triangle, right = (x.aval.shape for x in equation.invars[:2])
    return 1.0 * triangle[-1] * math.prod(right)


PRODUCTS: Costs = {"dot_general": _product, "triangular_solve": _solve}
"""Primitive -> operations of one."""

DECOMPOSITION_FACTORS = {
    "cholesky": 1 / 3,
    "geqrf": 4 / 3,
    "qr": 8 / 3,
    "householder_product": 4 / 3,
    "eigh": 9.0,
    "svd": 12.0,
}
"""Primitive -> operations of one, of an n × n matrix in n³: the usual estimates."""

DECOMPOSITIONS: Costs = {name: _square(factor) for name, factor in DECOMPOSITION_FACTORS.items()}
"""Primitive -> operations of one; those of m × n are in m · n · min(m, n)."""
