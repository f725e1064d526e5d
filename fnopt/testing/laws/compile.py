"""The laws of compilation: one program, no aliasing, abstract init, bounded memory."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from fnopt.testing.laws.law import Evidence, NotApplicable
from fnopt.testing.laws.subject import (
    FEW,
    Counted,
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
    """L1, for every pair of dtypes by tracing, and once by running one program for all."""
    every = {}
    for p, g in itertools.product(LOW, LOW):
        with found.at(f"{p} params, {g} gradients"):
            params, gradients = params_of(LOW[p], FEW), gradients_of(LOW[g], shapes=FEW)
            every[f"{p} params, {g} gradients"] = params, subject.init(params), gradients
    if not _run(subject, Evidence(), every):
        _one_by_one(subject, found, every)
    with jax.enable_x64(True):
        for p, g in WIDE:
            _check_wide(subject, found, p, g)


def _is_fixed(subject: Subject, found: Evidence, params: Any, state: Any, gradients: Any) -> bool:
    before = len(found.breaches)
    new_params, new_state = jax.eval_shape(subject.step, params, state, gradients)
    found.extend(changes(state, new_state))
    found.extend(changes(params, new_params))
    return len(found.breaches) == before


def _check_wide(subject: Subject, found: Evidence, p: str, g: str) -> None:
    with found.at(f"{p} params, {g} gradients"):
        params = params_of(jnp.dtype(p), FEW)
        gradients = gradients_of(jnp.dtype(g), shapes=FEW)
        try:
            _is_fixed(subject, found, params, subject.init(params), gradients)
        except (TypeError, ValueError) as error:
            if "complex" not in p or "complex" not in str(error):
                raise
            found.note(f"refused: {error}")


def _one_by_one(subject: Subject, found: Evidence, every: dict[str, Any]) -> None:
    """Which pairs of dtypes keep the law, and the others' steps."""
    holding = {}
    for name, (params, state, gradients) in every.items():
        with found.at(name):
            if _is_fixed(subject, found, params, state, gradients):
                holding[name] = params, state, gradients
    if holding:
        _run(subject, found, holding)


def _run(subject: Subject, found: Evidence, holding: dict[str, Any]) -> bool:
    """Twice two scanned steps of one program with every pair of dtypes: whether all is well."""

    def all_steps(trees: Any, _: Any) -> Any:
        moved = {name: subject.advance(g, s, p) for name, (p, s, g) in trees.items()}
        return {name: (p, s, trees[name][2]) for name, (_, s, p) in moved.items()}, None

    with found.at("jitted steps, as the carry of lax.scan"):
        counted = Counted(lambda trees: jax.lax.scan(all_steps, trees, length=2)[0])
        jitted, trees = jax.jit(counted), holding
        for _ in range(2):
            trees = jitted(trees)
            found.extend(changes(holding, trees))
        found.expect(counted.traces == 1, f"traced {counted.traces} times, expected 1")
    return not found.breaches


def no_aliasing(subject: Subject, found: Evidence) -> None:
    """L9, for eager and jitted init."""
    for how, init in (("init", subject.init), ("jit(init)", jax.jit(subject.init))):
        with found.at(how):
            params = params_of()
            state = init(params)
            owners: dict[int, str] = {}
            trees = {f"params{k}": v for k, v in named(params).items()}
            trees |= {f"state{k}": v for k, v in named(state).items()}
            for path, leaf in trees.items():
                if isinstance(leaf, jax.Array) and leaf.size:
                    for shard in leaf.addressable_shards:
                        pointer = shard.data.unsafe_buffer_pointer()
                        owner = owners.setdefault(pointer, path)
                        found.expect(owner == path, f"{path} shares the buffer of {owner}")
    with found.at("params and state donated together"):
        step = jax.jit(lambda s, p, g: subject.advance(g, s, p)[1:], donate_argnums=(0, 1))
        params = params_of(shapes=FEW)
        state = subject.init(params)
        for i in range(2):
            state, params = step(state, params, gradients_of(step=i, shapes=FEW))


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
