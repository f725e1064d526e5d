"""What a step of every optimizer costs, beside optax: `fnopt bench costs`.

Bytes, temporary memory and state are the compiler's counts, which repeat exactly. Times are
processor seconds of all threads, and compared in pairs that alternate in one process.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

import fnopt
from fnopt.bench import trees
from fnopt.bench.counts import Count, count, needs
from fnopt.training import choices

TREES: dict[str, tuple[str, Callable[[], Any]]] = {
    "transformer": ("a transformer's 12 hidden layers of 256", trees.transformer),
    "wide": ("one wide leaf", trees.wide_leaf),
    "many": ("many small leaves, of 16 layers of 64", lambda: trees.transformer(16, 64)),
}
"""Name -> what it is, and a function that makes it."""

FLOOR = {
    "sgd": 12, "momentum": 24, "sgd with momentum": 24, "sgd with nesterov": 28, "adagrad": 28,
    "rmsprop": 28, "adam": 40, "adamw": 40, "radam": 40, "yogi": 40, "nadam": 44, "lion": 28,
    "clip + adamw": 44, "adabelief": 44, "adan": 72, "lamb": 56, "lars": 36, "adafactor": 32,
    "ademamix": 56, "adopt": 40, "prodigy": 68, "schedule_free_adamw": 48,
    "accumulate 4 × adamw": 60,
}  # fmt: skip
"""Bytes per parameter of one loop per output, each reading what it needs (float32)."""

MOST_USED = (
    "sgd", "sgd with momentum", "sgd with nesterov", "adagrad", "rmsprop", "adam", "adamw",
    "clip + adamw", "lion", "adafactor",
)  # fmt: skip
"""The configurations whose counts a test compares with the committed table."""

GIVEN: dict[str, dict[str, Any]] = {
    "dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "seed": 0},
    **dict.fromkeys(("apollo", "apollo_mini", "noisy_sgd", "psgd_kron"), {"key": 0}),
}
"""Arguments without which an optimizer cannot be made, beside its rate."""

RATE = 0.01
SLACK = 0.1  # bytes per parameter: scalars, and sums over the leaves


class Configuration(NamedTuple):
    """An optimizer with its arguments.

    Attributes:
      ours: makes it.
      theirs: makes optax's; None where optax has none or is not installed.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any] | None


class Row(NamedTuple):
    """What a configuration costs on a tree.

    Attributes:
      ours: the medians of its counts.
      theirs: those of optax's; None where there is none.
      lowering: the time to trace and lower it over optax's: the median of the pairs' ratios.
      compiling: the time to compile it over optax's, likewise.
      pairs: how many times it was compiled.
    """

    ours: Count
    theirs: Count | None = None
    lowering: float | None = None
    compiling: float | None = None
    pairs: int = 1


def configurations() -> dict[str, Configuration]:
    """Every whole optimizer of the package with its defaults, and its other rules."""
    peer = _peer()
    found = {}
    for name, factory in choices.optimizers().items():
        arguments = {str(choices.rate_name(factory)): RATE, **GIVEN.get(name, {})}
        theirs = peer(name)
        found[name] = Configuration(
            functools.partial(factory, **arguments),
            theirs and functools.partial(theirs, **arguments),
        )

    def variant(name: str, factory: str, **arguments: Any) -> None:
        ours, theirs = getattr(fnopt, factory), peer(factory)
        found[name] = Configuration(
            lambda: ours(RATE, **arguments), theirs and (lambda: theirs(RATE, **arguments))
        )

    variant("sgd with momentum", "sgd", momentum=0.9)
    variant("sgd with nesterov", "sgd", momentum=0.9, nesterov=True)
    variant("rmsprop centered", "rmsprop", centered=True)
    variant("rmsprop with momentum", "rmsprop", momentum=0.9)
    variant("adam with nesterov", "adam", nesterov=True)
    with contextlib.suppress(ImportError):
        import optax

        found["momentum"] = found["momentum"]._replace(
            theirs=lambda: optax.chain(optax.scale_by_learning_rate(RATE), optax.trace(0.9))
        )
    found["clip + adamw"] = Configuration(
        lambda: fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(RATE)),
        peer("chain") and (lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE))),
    )
    found["accumulate 4 × adamw"] = Configuration(
        lambda: fnopt.accumulate(fnopt.adamw(RATE), 4),
        peer("MultiSteps") and (lambda: optax.MultiSteps(optax.adamw(RATE), 4)),
    )
    return found


def _peer() -> Callable[[str], Any]:
    """A name of optax or optax.contrib; None where there is none."""
    try:
        import optax
        import optax.contrib
    except ImportError:
        return lambda name: None
    return lambda name: getattr(optax.contrib, name, None) or getattr(optax, name, None)


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles everything anew inside: the persistent compilation cache is off."""
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    option = "jax_enable_compilation_cache"
    before = getattr(jax.config, option)
    jax.config.update(option, False)
    reset_cache()  # whether it is on is asked once, before the first compilation
    try:
        yield
    finally:
        jax.config.update(option, before)
        reset_cache()


def measure(configuration: Configuration, tree: Any, rounds: int = 1) -> Row:
    """The row of a configuration: `rounds` compilations of each of the two, in turn.

    Args:
      configuration: the two optimizers.
      tree: the params' shapes.
      rounds: how many pairs.
    """
    needed = needs(configuration.ours(), tree)
    extras = {k: v for k, v in needed["extras"].items() if k != "key"}  # optax's state has it

    def ours() -> Count:
        return count(configuration.ours(), tree, **needed)

    def theirs(make: Callable[[], Any]) -> Count:
        import optax

        return count(make(), tree, optax.apply_updates, **needed | {"extras": extras})

    runs = [ours]
    if configuration.theirs is not None:
        runs.append(functools.partial(theirs, configuration.theirs))
    found: list[list[Count]] = [[] for _ in runs]
    with without_cache():
        for i in range(rounds):
            for j in (range(len(runs)), reversed(range(len(runs))))[i % 2]:
                found[j].append(runs[j]())
    medians = [Count(*map(statistics.median, zip(*counts))) for counts in found]
    if len(found) == 1:
        return Row(medians[0], pairs=rounds)
    pairs = list(zip(*found))
    return Row(
        medians[0],
        medians[1],
        statistics.median((a.trace + a.lower) / (b.trace + b.lower) for a, b in pairs),
        statistics.median(a.compile / b.compile for a, b in pairs),
        rounds,
    )
