"""The laws of compilation: one program, no aliasing, abstract init, bounded memory."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from fnopt.testing.laws.law import Evidence, NotApplicable
from fnopt.testing.laws.subject import (
    FEW,
    Subject,
    changes,
    describe,
    gradients_of,
    named,
    params_of,
    same_structure,
)

LOW = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16}
WIDE = [
    ("float64", "float64"),
    ("float64", "float32"),
    ("float32", "float64"),
    ("complex64", "complex64"),
    ("complex128", "complex128"),
]
WIDE_SHAPES = {"wide": (256, 1024), "bias": (1024,), "gain": ()}


def one_compile(subject: Subject, found: Evidence) -> None:
    """L1, for every pair of dtypes by tracing, and for float32 by running.

    A step that gives back the types of its arguments (shape, dtype and weak type of each leaf) has
    one entry in the cache of `jit` and is the body of a `lax.scan`.
    """
    for p, g in itertools.product(LOW, LOW):
        _check_pair(subject, found, p, g, LOW[p], LOW[g])
    with jax.enable_x64(True):
        for p, g in WIDE:
            _check_pair(subject, found, p, g, jnp.dtype(p), jnp.dtype(g))
    _run(subject, found)


def _check_pair(subject: Subject, found: Evidence, p: str, g: str, like: Any, other: Any) -> None:
    with found.at(f"{p} params, {g} gradients"):
        params, gradients = params_of(like, FEW), gradients_of(other, shapes=FEW)
        try:
            state = jax.eval_shape(subject.init, params)
            new_params, new_state = jax.eval_shape(subject.step, params, state, gradients)
        except (TypeError, ValueError) as error:
            if "complex" not in p or "complex" not in str(error):
                raise
            found.note(f"refused: {error}")
        else:
            found.extend(changes(state, new_state))
            found.extend(changes(params, new_params))


def _run(subject: Subject, found: Evidence) -> None:
    """Two compiled steps, by the program that the other laws run too."""
    with found.at("jitted steps"):
        params, before = params_of(), subject.traced.traces
        state = subject.init(params)
        moved, later = params, state
        for i in range(2):
            _, later, moved = subject.advance(gradients_of(step=i), later, moved)
            found.extend(changes(state, later))
            found.extend(changes(params, moved))
        traces = subject.traced.traces - before
        found.expect(traces <= 1, f"traced {traces} times, expected 1")


def no_aliasing(subject: Subject, found: Evidence) -> None:
    """L9, for eager and jitted init, and after a jitted step.

    A compiled program has a buffer for each of its outputs, but for those that are its inputs.
    """
    params = params_of()
    with found.at("init"):
        _check_buffers(found, params, subject.init(params))
    with found.at("jit(init)"):
        jaxpr = jax.make_jaxpr(subject.init)(params).jaxpr
        for path, var in zip(named(jax.eval_shape(subject.init, params)), jaxpr.outvars):
            owners = [p for p, own in zip(named(params), jaxpr.invars) if own is var]
            found.expect(not owners, f"state{path} shares the buffer of params{owners}")
    with found.at("a jitted step"):
        _, state, moved = subject.advance(gradients_of(), subject.init(params), params)
        _check_buffers(found, moved, state)


def _check_buffers(found: Evidence, params: Any, state: Any) -> None:
    """Whether params and state can be donated together: each leaf has a buffer of its own."""
    owners: dict[int, str] = {}
    trees = {f"params{k}": v for k, v in named(params).items()}
    trees |= {f"state{k}": v for k, v in named(state).items()}
    for path, leaf in trees.items():
        if isinstance(leaf, jax.Array) and leaf.size:
            for shard in leaf.addressable_shards:
                pointer = shard.data.unsafe_buffer_pointer()
                owner = owners.setdefault(pointer, path)
                found.expect(owner == path, f"{path} shares the buffer of {owner}")


def abstract_init(subject: Subject, found: Evidence) -> None:
    """L17, in float32 and bfloat16."""
    for dtype in (jnp.float32, jnp.bfloat16):
        with found.at(f"{jnp.dtype(dtype).name} params"):
            params = params_of(dtype)
            abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
            wanted = subject.init(params)
            ways = {
                "jax.eval_shape(init, params)": lambda: jax.eval_shape(subject.init, params),
                "jax.eval_shape(init, ShapeDtypeStructs)": lambda: jax.eval_shape(
                    subject.init, abstract
                ),
                "init(ShapeDtypeStructs)": lambda: subject.init(abstract),
            }
            for way, make in ways.items():
                with found.at(way):
                    _compare_types(found, make(), wanted)


def _compare_types(found: Evidence, got: Any, wanted: Any) -> None:
    if not same_structure(got, wanted):
        found.breach(f"gives {jax.tree.structure(got)}, init gives {jax.tree.structure(wanted)}")
        return
    for path, w in named(wanted).items():
        a, b = describe(named(got)[path]), describe(w)
        found.expect(a == b, f"{path} is {a}, init gives {b}")


def bounded_memory(subject: Subject, found: Evidence) -> None:
    """L18, by the compiler's own count."""
    bound = subject.builder.temp_fraction
    if bound is None:
        raise NotApplicable("the builder promises no bound: its temp_fraction is None")
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        WIDE_SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    state = jax.eval_shape(subject.init, params)
    step = jax.jit(subject.step, donate_argnums=(0, 1))
    analysis = step.lower(params, state, params).compile().memory_analysis()
    if analysis is None:
        raise NotApplicable("this platform's compiler does not say how much memory it uses")
    size = sum(4 * x.size for x in jax.tree.leaves(params))
    used = analysis.temp_size_in_bytes / size
    found.expect(
        used <= bound,
        f"the step's temporaries are {used:.2f} of the params' bytes, expected at most {bound}",
    )
    found.note(f"temporaries: {used:.3f} of the params' bytes")
