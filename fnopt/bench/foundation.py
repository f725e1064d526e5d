"""The time to trace and lower AdamW with 480 leaves: `python -m fnopt.bench.foundation`.

Prints its ratio to optax's: the median of pairs that alternate in this process. What the compiled
step costs is counted by `fnopt bench costs`.
"""

from __future__ import annotations

import statistics

import jax

import fnopt
from fnopt.bench import trees
from fnopt.bench.counts import count


def main(rounds: int = 7) -> float:
    """Prints and returns the ratio."""
    import optax

    many = trees.many_leaves()
    ratios = []
    for _ in range(rounds):
        a = count(fnopt.adamw(1e-3), many, compiled=False)
        b = count(optax.adamw(1e-3), many, optax.apply_updates, compiled=False)
        ratios.append((a.trace + a.lower) / (b.trace + b.lower))
    print(
        f"tracing and lowering adamw with {len(jax.tree.leaves(many))} leaves: "
        f"{statistics.median(ratios):.2f} of optax's time (median of {len(ratios)} pairs, "
        f"{min(ratios):.2f} to {max(ratios):.2f})"
    )
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
