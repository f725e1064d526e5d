"""The laws of numbers: moments that move, true norms, zero and huge gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from fnopt.testing.laws.law import Evidence
from fnopt.testing.laws.subject import (
    FEW,
    SHAPES,
    Subject,
    dead,
    differences,
    full_of,
    gradients_of,
    not_finite,
    op_by_op,
    params_of,
    same_structure,
    values_of,
)
from fnopt.testing.laws.widths import stays_wide

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
SMALL = 1 / 128  # the gradient of the second phase, exact in every dtype


def moments_move(subject: Subject, found: Evidence) -> None:
    """L2: a long run with a fall of the gradients, in bfloat16 as in float32.

    Not run where the bfloat16 step has the float32 step's arithmetic.
    """
    if stays_wide(subject, jnp.bfloat16):
        return
    full, low = _long_runs(subject, (jnp.float32, jnp.bfloat16))
    for what in ("the sum of the updates", "the last update", "the state"):
        with found.at(f"{what} of the bfloat16 run against the float32 run"):
            a, b = low[what], full[what]
            if what == "the state" and not same_structure(a, b):
                found.note("the states differ in structure and were not compared")
            else:
                found.extend(differences(a, b, 0.05))


def _long_runs(subject: Subject, dtypes: Sequence[Any]) -> list[dict[str, Any]]:
    """1000 steps with gradients of 1, then 3000 with 1/128, the params held fixed, in each dtype.

    Held fixed, because the law is about what the rule keeps, not about rounding the params.
    """
    every = [params_of(dtype, FEW) for dtype in dtypes]

    def one(carry: Any, g: jax.Array, params: Any) -> Any:
        state, total, _ = carry
        gradients = jax.tree.map(lambda p: jnp.full(p.shape, g.astype(p.dtype)), params)
        updates, state, _ = subject.advance(gradients, state, params)
        updates = jax.tree.map(lambda u: u.astype(jnp.float32), updates)
        return state, jax.tree.map(jnp.add, total, updates), updates

    def advance(carries: Any, g: jax.Array) -> Any:
        return [one(carry, g, params) for carry, params in zip(carries, every)], None

    sizes = jnp.concatenate([jnp.ones(1000), jnp.full(3000, SMALL)])
    zeros = full_of(jnp.float32, 0.0, FEW)
    starts = [(subject.init(params), zeros, zeros) for params in every]
    ends = jax.jit(lambda starts: jax.lax.scan(advance, starts, sizes)[0])(starts)
    names = ("the state", "the sum of the updates", "the last update")
    return [dict(zip(names, end)) for end in ends]


def true_norms(subject: Subject, found: Evidence) -> None:
    """L4, as far as it shows in the updates: scale, many leaves, and split over a mesh.

    With small gradients the params are small too: a method that computes where they end, and not
    how far they move, would round such a step away beside larger ones.
    """
    params = params_of()
    usual = subject.advance(gradients_of(), subject.init(params), params)[0]
    for factor, what in ((1e-25, "gradients and params"), (1e20, "gradients")):
        with found.at(f"{what} times {factor:g}"):
            scaled = values_of(jnp.float32, 0, factor=factor) if factor < 1 else params
            gradients = gradients_of(factor=factor)
            updates = subject.advance(gradients, subject.init(scaled), scaled)[0]
            found.extend(not_finite(updates))
            found.extend(dead(updates, usual))
    if not all(stays_wide(subject, dtype) for dtype in (jnp.bfloat16, jnp.float16)):
        _narrow_norms(subject, found)
    if subject.builder.accepts("axis_name"):
        _split_over_a_mesh(subject, found)


def _narrow_norms(subject: Subject, found: Evidence) -> None:
    with found.at("16 and 24 ones, bfloat16 scalars against float32 scalars"):
        many = []  # in bfloat16 256 + 1 is 256, so the norm would be 16 and not 16.7
        for dtype in (jnp.bfloat16, jnp.float32):
            scalars = {f"p{i:02}": jnp.asarray(16.0 if i == 0 else 1.0, dtype) for i in range(25)}
            with op_by_op():
                many.append(subject.look(scalars, subject.init(scalars), scalars)[0])
        found.extend(differences(many[0], many[1], 0.02))
    with found.at("float16 gradients near their limit against float32"):
        shapes = {"kernel": (4, 3)}
        pair = []
        for dtype in (jnp.float16, jnp.float32):
            large, ones = full_of(dtype, 6e4, shapes), full_of(dtype, 1.0, shapes)
            with op_by_op():
                pair.append(subject.look(large, subject.init(ones), ones)[0])
        found.extend(differences(pair[0], pair[1], 0.02))


def _split_over_a_mesh(subject: Subject, found: Evidence) -> None:
    if len(jax.devices()) < 2:
        found.note("axis_name was not tried: it needs 2 devices")
        return
    with found.at("axis_name inside shard_map"):
        split = Subject(subject.builder, axis_name="d")
        mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
        shapes = {"kernel": (4, 3), "bias": (2,)}
        params, gradients = params_of(shapes=shapes), gradients_of(shapes=shapes, factor=10)
        with op_by_op():
            wanted, _ = subject.look(gradients, subject.init(params), params)

        def local(g: Any, p: Any) -> Any:
            return split.update(g, split.init(p), p)[0]

        axis = PartitionSpec("d")
        whole = jax.shard_map(local, mesh=mesh, in_specs=(axis, axis), out_specs=axis)
        found.extend(differences(jax.jit(whole)(gradients, params), wanted))


def norm_is_true(norm: Any, found: Evidence) -> None:
    """L4 for a function `norm(tree) -> scalar`."""
    inf, nan = float("inf"), float("nan")
    cases: dict[str, tuple[Any, float]] = {
        "3 and 4": ({"a": full_of(jnp.float32, 3.0, (1,)), "b": full_of(jnp.float32, 4.0, ())}, 5),
        "bfloat16 leaves, 2000 of them": ([full_of(jnp.bfloat16, 1.0, ())] * 2000, 2000**0.5),
        "float16 near its limit": ([full_of(jnp.float16, 6e4, (4,))], 1.2e5),
        "entries of 1e20": ([full_of(jnp.float32, 1e20, (4,))], 2e20),
        "entries of 1e-25": ([full_of(jnp.float32, 1e-25, (4,))], 2e-25),
        "zeros": ([full_of(jnp.float32, 0.0, (4,))], 0.0),
        "an infinite entry": ([full_of(jnp.float32, inf, (1,)), full_of(jnp.float32, 1, ())], inf),
        "a NaN": ([full_of(jnp.float32, nan, (1,)), full_of(jnp.float32, 1, ())], nan),
        "an empty leaf": ([full_of(jnp.float32, 1.0, (0, 3))], 0.0),
        "an empty tree": ({}, 0.0),
        "complex entries": ([full_of(jnp.complex64, 3 + 4j, (1,))], 5.0),
    }
    for name, (trees, wanted) in cases.items():
        with found.at(name):
            got = float(np.asarray(norm(trees), np.float64))
            close = bool(np.isclose(got, wanted, rtol=1e-3, atol=0, equal_nan=True))
            found.expect(close, f"is {got:g}, expected {wanted:g}")
    with found.at("the derivative at zero"):
        found.extend(not_finite(jax.grad(norm)([full_of(jnp.float32, 0.0, (4,))])))


def zero_gradients(subject: Subject, found: Evidence) -> None:
    """L5: zeros from the start and after a step, in each dtype; and the derivative.

    Compiled, for a compiler may turn (0 / tiny) / eps into 0 / (tiny * eps). Narrow dtypes are run
    where the step does not have the arithmetic of float32.
    """
    for dtype in DTYPES:
        if dtype != jnp.float32 and stays_wide(subject, dtype):
            continue
        with found.at(f"{jnp.dtype(dtype).name} params"):
            params, zero = params_of(dtype), full_of(dtype, 0.0)
            start = subject.init(params)
            series = [zero, zero, gradients_of(dtype), zero]
            steps = subject.run(params, series, jitted=True)
            for i, (updates, state, moved) in enumerate(steps, 1):
                with found.at(f"step {i}"):
                    found.extend(f"the update of {w}" for w in not_finite(updates))
                    found.extend(f"the state's {w}" for w in not_finite(state, start))
                    found.extend(f"the parameter {w}" for w in not_finite(moved))
    with found.at("the derivative of the updates by a gradient of zero"):
        params = params_of()

        def two_steps(gradients: Any) -> jax.Array:
            state, total = subject.init(params), jnp.zeros(())
            for _ in range(2):
                updates, state = subject.look(gradients, state, params)
                total = total + sum(jnp.sum(u) for u in jax.tree.leaves(updates))
            return total

        derivative = jax.jit(jax.grad(two_steps))
        found.extend(not_finite(derivative(full_of(jnp.float32, 0.0))))


def huge_gradients(subject: Subject, found: Evidence) -> None:
    """L6: one entry of 1e20 in the second step of six.

    An entry moves again if a usual gradient moves it. For the huge entry itself the spike once
    more may do it: beside a sum that forgets nothing, a method that computes where its step ends
    rounds the usual ones away.
    """
    for dtype in (jnp.float32, jnp.bfloat16):
        if dtype == jnp.float32 or not stays_wide(subject, dtype):
            with found.at(f"{jnp.dtype(dtype).name} params"):
                _check_spike(subject, found, dtype)


def _check_spike(subject: Subject, found: Evidence, dtype: Any) -> None:
    params = params_of(dtype)
    usual = [gradients_of(dtype, step=i) for i in range(6)]
    spiked = list(usual)
    layer = usual[1]["layer"]
    kernel = layer["kernel"].at[0, 0].set(jnp.asarray(1e20, dtype))
    spiked[1] = {**usual[1], "layer": {**layer, "kernel": kernel}}
    start = subject.init(params)
    last, again = start, (start, params)
    for i, (updates, state, moved) in enumerate(subject.run(params, spiked, jitted=True), 1):
        with found.at(f"step {i}"):
            found.extend(f"the update of {w}" for w in not_finite(updates))
            found.extend(f"the state's {w}" for w in not_finite(state, start))
            last, again = updates, (state, moved)
    undisturbed = list(subject.run(params, usual, jitted=True))[-1][0]
    once_more = subject.advance(spiked[1], *again)[0]
    for path in _entries():
        was, now = _entry(undisturbed, path), _entry(last, path)
        spiky = path == ("layer", "kernel")
        where = "with the huge entry" if spiky else "without it"
        found.expect(
            bool(now != 0) or was == 0 or (spiky and _entry(once_more, path) != 0),
            f"four steps later the parameter {'/'.join(path)} {where} does not move: its update is "
            f"{now:g}, undisturbed {was:g}",
        )


def _entries() -> list[tuple[str, ...]]:
    pairs = jax.tree_util.tree_flatten_with_path(SHAPES, is_leaf=lambda x: isinstance(x, tuple))[0]
    return [tuple(key.key for key in path) for path, _ in pairs]


def _entry(t: Any, path: tuple[str, ...]) -> float:
    for key in path:
        t = t[key]
    return float(np.asarray(t, np.float64).flat[0])
