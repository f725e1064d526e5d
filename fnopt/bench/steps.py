"""Step times of matrix optimizers: `python -m fnopt.bench.steps --out docs/benchmarks/steps.md`.

All in one process, the steps of all of them in turn. Times are processor seconds of all threads,
which other work on the machine disturbs less than the clock; what is told are ratios.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import fnopt
from fnopt.bench import trees
from fnopt.bench.arithmetic import Arithmetic, operations
from fnopt.bench.costs import without_cache

RATE = 0.01
TREES: dict[str, tuple[str, Callable[[], Any]]] = {
    "transformer": ("12 layers of 256, 120 leaves", trees.transformer),
    "many": ("48 layers of 64, 480 leaves", trees.many_leaves),
}
PERIODS = {"soap": 10, "shampoo": 10, "psgd_kron": 1 / 0.03}
"""In one of how many steps the branches of an optimizer are due, by default and in the long run."""

GIVEN: dict[str, dict[str, Any]] = {"dion": {"key": 0}, "psgd_kron": {"key": 0, "update_every": 10}}
"""Arguments beside the rate: PSGD's preconditioner, due more often in its first steps, as later."""

FAMILY = ("muon", "normuon", "adamuon", "mars_muon", "muon_clip", "dion", "scion", *PERIODS)


class Steps(NamedTuple):
    """What an optimizer costs on a tree.

    Attributes:
      lower: processor seconds to trace and lower a step.
      compile: to compile it.
      step: of the median step.
      mean: of the mean step, with what is due once in a while in its share.
      temporary: bytes of temporary memory per parameter.
      products: operations of products and solves.
      decompositions: operations of QR and eigenvalues.
    """

    lower: float
    compile: float
    step: float
    mean: float
    temporary: float
    products: Arithmetic
    decompositions: Arithmetic


class Contender:
    """A compiled step with its params and state."""

    def __init__(self, name: str, optimizer: Any, tree: Any, apply: Callable[..., Any]):
        def step(params: Any, state: Any, gradients: Any) -> Any:
            updates, state = optimizer.update(gradients, state, params)
            return apply(params, updates), state

        keys = jax.random.split(jax.random.key(0), len(jax.tree.leaves(tree)))
        leaves, structure = jax.tree.flatten(tree)
        treedef: Any = structure
        values = [0.02 * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves)]
        self.name, self.size, self.times = name, trees.size(tree), list[float]()
        self.gradients = treedef.unflatten(values)
        self.params = jax.tree.map(jnp.copy, self.gradients)
        self.state = optimizer.init(self.params)
        self.arithmetic = operations(step, self.params, self.state, self.gradients)
        start = time.process_time()
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
            self.params, self.state, self.gradients
        )
        middle = time.process_time()
        self.program: Any = lowered.compile()
        memory: Any = self.program.memory_analysis()
        self.temporary = memory.temp_size_in_bytes / self.size
        self.lower, self.compile = middle - start, time.process_time() - middle

    def step(self) -> None:
        """Makes one step and notes its time."""
        start = time.process_time()
        self.params, self.state = self.program(self.params, self.state, self.gradients)
        jax.block_until_ready(self.params)
        self.times.append(time.process_time() - start)

    def result(self, period: float) -> Steps:
        """The numbers; the first step, which may be another than the rest, is left out."""
        times = self.times[1:]
        usual = statistics.median(times)
        late = max(times) if period > 1 else usual
        return Steps(
            self.lower,
            self.compile,
            usual,
            usual + max(0.0, late - usual) / period,
            self.temporary,
            *self.arithmetic,
        )


def optimizers(names: Sequence[str] | None) -> dict[str, tuple[Any, Callable[..., Any]]]:
    """AdamW, optax's AdamW and Muon where it is installed, and ours by name."""
    found: dict[str, tuple[Any, Callable[..., Any]]] = {
        "adamw": (fnopt.adamw(RATE), fnopt.apply_updates)
    }
    try:
        import optax
        import optax.contrib

        found["optax muon"] = (optax.contrib.muon(RATE), optax.apply_updates)
    except ImportError:
        pass
    for name in FAMILY if names is None else names:
        factory = getattr(fnopt, name)
        found[name] = (factory(RATE, **GIVEN.get(name, {})), fnopt.apply_updates)
    return found


def measure(tree: Any, steps: int, names: Sequence[str] | None = None) -> dict[str, Steps]:
    """The steps of all, in turn, on one tree."""
    with without_cache():
        found = [
            Contender(name, optimizer, tree, apply)
            for name, (optimizer, apply) in optimizers(names).items()
        ]
    for _ in range(steps + 1):
        for one in found:
            one.step()
            gc.collect(0)
    return {one.name: one.result(PERIODS.get(one.name, 1)) for one in found}


def product_rate(n: int = 256, seconds: float = 0.5) -> float:
    """Floating-point operations in a processor second of all threads, in products of n × n."""
    return _rate(lambda x: jnp.matmul(x, x), n, seconds, 2.0 * n**3)


def decomposition_rate(n: int = 1024, seconds: float = 2.0) -> float:
    """The same, in QR decompositions of n × n."""
    return _rate(lambda x: jnp.linalg.qr(x)[0], n, seconds, 8 / 3 * n**3)


def _rate(f: Callable[[jax.Array], jax.Array], n: int, seconds: float, count: float) -> float:
    x = jax.random.normal(jax.random.key(0), (n, n))
    program = jax.jit(f)
    jax.block_until_ready(program(x))
    start, times = time.process_time(), 0
    while time.process_time() - start < seconds:
        jax.block_until_ready(program(x))
        times += 1
    return count * times / (time.process_time() - start)


HEAD = f"""# Steps of matrix optimizers

Made by `COMMAND`: jax {jax.__version__}, cpu.

All in one process, their steps in turn. Times are processor seconds of all threads. Operations are
counted in the traced program: matrix products, solves and decompositions (QR and eigenvalues by the
usual estimates), a loop as often as it turns. "due" are the further ones of a step in which all
that is done once in a while is done: one of 10 for SOAP and Shampoo, three of 100 for PSGD in the
long run. The amortized step has its share of them. The bound is four steps of AdamW and the
amortized operations: products at the rate of one of 256 × 256, decompositions at that of LAPACK's
QR of 1024 × 1024, in the same process. It falls by half or more beside other work.
Where QR is made of panels, as SOAP's and Dion's up to 512 rows, its products count as products,
about three times as many as LAPACK's.

Against optax's Muon the bounds are 0.5 of its step, 0.3 of its compile time and 0.4 of its
temporary memory. optax's Muon takes every leaf of two dimensions, which ours does on these trees.
"""


def page(found: dict[str, dict[str, Steps]], rates: dict[str, tuple[float, float]]) -> str:
    """The page of all trees."""
    parts = [HEAD]
    for tree, rows in found.items():
        parts.append(f"## {tree}: {TREES[tree][0]}\n")
        fast, slow = rates[tree]
        parts.append(
            f"In a processor second: {fast / 1e9:.0f} GFLOP of products, {slow / 1e9:.1f} of QR.\n"
        )
        adamw, peer = rows["adamw"], rows.get("optax muon")
        if peer:
            parts.append(
                "| of optax's Muon | step | compile | trace and lower | temporary |\n"
                "| --- | --- | --- | --- | --- |"
            )
            for name, row in rows.items():
                if name not in ("adamw", "optax muon"):
                    ratios = (
                        row.mean / peer.mean,
                        row.compile / peer.compile,
                        row.lower / peer.lower,
                        row.temporary / peer.temporary,
                    )
                    parts.append(f"| {name} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")
            parts.append("")
        parts.append(
            "|  | step ms | amortized ms | bound ms | of AdamW | GFLOP of products | due | "
            "of decompositions, due | temporary bytes a parameter |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        )
        for name, row in rows.items():
            period = PERIODS.get(name, 1)
            products, others = row.products.amortized(period), row.decompositions.amortized(period)
            bound = 4 * adamw.step + products / fast + others / slow
            parts.append(
                f"| {name} | {1e3 * row.step:.0f} | {1e3 * row.mean:.0f} | {1e3 * bound:.0f} | "
                f"{row.mean / adamw.mean:.1f} | {row.products.always / 1e9:.1f} | "
                f"{row.products.due / 1e9:.1f} | {row.decompositions.due / 1e9:.1f} | "
                f"{row.temporary:.1f} |"
            )
        parts.append("")
    return "\n".join(parts)


def main(words: Sequence[str] | None = None) -> None:
    """Measures, and prints or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="optimizers, with commas between")
    parser.add_argument("--steps", type=int, default=21)
    parser.add_argument("--tree", choices=list(TREES), action="append")
    args = parser.parse_args(words)
    names = args.only.split(",") if args.only else None
    found, rates = {}, {}
    for tree in args.tree or TREES:
        rates[tree] = product_rate(), decomposition_rate()
        found[tree] = measure(TREES[tree][1](), args.steps, names)
    given = " ".join(sys.argv[1:] if words is None else words)
    text = page(found, rates).replace("COMMAND", f"python -m fnopt.bench.steps {given}".strip())
    if args.out:
        args.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
