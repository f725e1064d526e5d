"""The laws that every transformation keeps, for anyone's: `check(build)` and `report(build)`.

    from fnopt.testing import Builder, check
    check(Builder(my_optimizer, 1e-3))        # raises LawError with the evidence

`build` is called without arguments, more than once, and returns a transformation; a `Builder`
(or any callable with keyword arguments and an attribute `kinds`) lets the laws about
hyperparameters replace single arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fnopt.testing.laws import (
    compile as compilation,
)
from fnopt.testing.laws import (
    hyperparameters,
    leaves,
    mistakes,
    numerics,
    placement,
    purity,
    values,
)
from fnopt.testing.laws.builder import Builder as Builder
from fnopt.testing.laws.law import BROKEN as BROKEN
from fnopt.testing.laws.law import KEPT as KEPT
from fnopt.testing.laws.law import NOT_APPLICABLE as NOT_APPLICABLE
from fnopt.testing.laws.law import Evidence as Evidence
from fnopt.testing.laws.law import Finding as Finding
from fnopt.testing.laws.law import Law as Law
from fnopt.testing.laws.law import LawError as LawError
from fnopt.testing.laws.law import NotApplicable as NotApplicable
from fnopt.testing.laws.subject import Subject as Subject

_TABLE = [
    (
        "One compile",
        "Shape, dtype, weak type and placement of the state never change from init on, for params "
        "and gradients in every pair of dtypes; the step is a valid lax.scan carry.",
        compilation.one_compile,
    ),
    (
        "Moments that move",
        "With bfloat16 params, 1000 steps of g=1 and 3000 of g=1/128 end within 5% of float32.",
        numerics.moments_move,
    ),
    (
        "Hyperparameters are never cast",
        "Hyperparameters in the state are never rounded to the params' dtype.",
        hyperparameters.never_rounded,
    ),
    (
        "Norms are true",
        "Large, small and many gradients give finite, nonzero updates, equal to float32's.",
        numerics.true_norms,
    ),
    (
        "Zero gradients are finite",
        "Gradients of zero give finite updates, state and derivatives in every dtype.",
        numerics.zero_gradients,
    ),
    (
        "Finite gradients leave a finite state",
        "One gradient entry of 1e20 leaves the state finite, and every parameter moves again.",
        numerics.huge_gradients,
    ),
    (
        "Leaves",
        "None, integers, booleans, float0, non-arrays, scalars, empty leaves and trees work; what "
        "is not a float array passes untouched and has no state.",
        leaves.any_leaves,
    ),
    (
        "Mistakes are named",
        "Wrong trees, swapped arguments, unknown extras, foreign states and values out of range "
        "raise an error that names the leaf or argument, with both shapes or the range.",
        mistakes.mistakes_are_named,
    ),
    (
        "No aliasing",
        "No leaf of the state shares a buffer with a parameter or another leaf.",
        compilation.no_aliasing,
    ),
    (
        "Shardings",
        "On automatic and explicit meshes the state lives beside its params from eager and jitted "
        "init on, one program runs every step, and the numbers are those of one device.",
        placement.shardings,
    ),
    (
        "Run-time hyperparameters",
        "Hyperparameters are readable, changeable without a retrace where Tunable, an error where "
        "not; vmap and derivatives reach them.",
        hyperparameters.run_time_hyperparameters,
    ),
    (
        "Identity",
        "Equal calls are equal and hash alike, pickle and copy; repr shows the hyperparameters.",
        values.identity,
    ),
    (
        "Checkpoints hold",
        "Constant and scheduled rates share a treedef; arrays have names, not positions.",
        values.checkpoints,
    ),
    (
        "eval_params reaches through any nesting",
        "The averages to evaluate are found at any depth, in the params' dtypes.",
        values.evaluation_params,
    ),
    (
        "Masked-out leaves are frozen",
        "A leaf that is masked out gets no update and has no state.",
        leaves.masked_out_leaves,
    ),
    (
        "Pure",
        "Eager equals jit equals scan; vmap equals a loop; containers change nothing.",
        purity.pure,
    ),
    (
        "Abstract init",
        "jax.eval_shape(init, params) and ShapeDtypeStruct params give the real state's types.",
        compilation.abstract_init,
    ),
    (
        "Bounded memory",
        "The compiled step needs temporaries of at most a fraction of the params' bytes.",
        compilation.bounded_memory,
    ),
]

LAWS: Mapping[str, Law] = {
    f"L{i}": Law(f"L{i}", title, says, check) for i, (title, says, check) in enumerate(_TABLE, 1)
}
"""The laws by their codes, `L1` to `L18`."""


def report(build: Callable[..., Any] | Subject, laws: Mapping[str, Law] = LAWS) -> list[Finding]:
    """The verdict of each law on the transformation that `build()` returns.

    Args:
      build: returns the transformation, or a pair of functions; see `Builder`. Each law looks at
        one of its own; a `Subject` instead is one for all, whose programs are compiled once.
      laws: the laws to judge by: all of them, or some, as `{"L1": LAWS["L1"]}`.
    """
    return [law.judge(build) for law in laws.values()]


def check(build: Callable[..., Any] | Subject, laws: Mapping[str, Law] = LAWS) -> None:
    """Asserts that the transformation that `build()` returns keeps the laws.

    Raises:
      LawError: listing every law that it breaks, with the evidence.
    """
    _raise(repr(build), report(build, laws))


def check_norm(norm: Callable[[Any], Any]) -> None:
    """Asserts that a function `norm(tree) -> scalar` keeps L4.

    Raises:
      LawError: with every case where it is not the true norm.
    """
    evidence = Evidence()
    numerics.norm_is_true(norm, evidence)
    _conclude("L4", norm, evidence)


def check_masked(build_masked: Callable[[Any], Any]) -> None:
    """Asserts that a masking wrapper keeps L15.

    Args:
      build_masked: mask -> transformation; the mask is a tree of bools, True where a rule that
        moves every leaf applies.

    Raises:
      LawError: where masked-out leaves move or have state, or a wrong mask is accepted.
    """
    evidence = Evidence()
    leaves.masking_freezes(build_masked, evidence)
    _conclude("L15", build_masked, evidence)


def _conclude(code: str, subject: Any, evidence: Evidence) -> None:
    verdict = BROKEN if evidence.breaches else KEPT
    name = getattr(subject, "__name__", repr(subject))
    _raise(name, [Finding(LAWS[code], verdict, tuple(evidence.breaches))])


def _raise(name: str, findings: list[Finding]) -> None:
    broken = [finding for finding in findings if finding.verdict == BROKEN]
    if broken:
        raise LawError(name, broken)
