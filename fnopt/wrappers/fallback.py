"""Hidden matrices for one rule, the rest for another: what every matrix optimizer is inside."""

from __future__ import annotations

from typing import Any

import jax

from fnopt import hidden_matrices, mesh_axes
from fnopt.core import GradientTransformation
from fnopt.hyperparameters import Labeled
from fnopt.wrappers.partitioning import partition


def matrix_or_fallback(
    name: str,
    rule: Any,
    fallback: Any,
    dimension_numbers: Any = None,
    layout: str = "in_out",
    axis_name: Any = None,
) -> GradientTransformation:
    """The rule on the hidden matrices, the fallback on all other leaves.

    A part of a matrix optimizer's factory. Which leaves are which, `fnopt.hidden_matrices.choices`
    says; those that it doubts are told of on the log.

    Args:
      name: of the optimizer: the label of its leaves, and the name of its states' entry.
      rule: a transformation of the matrices, to the end: updates that are ready to be added.
      fallback: a transformation of the other leaves.
      dimension_numbers: a tree like the params, or a function of the params, of
        `MatrixDimensionNumbers` and None.
      layout: "in_out" or "out_in".
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension: what they are is read off the whole ones' shapes.
    """

    def labels_fn(params: Any) -> Any:
        whole = params
        if axis_name is not None:
            shape = lambda x: mesh_axes.whole_shape(x, axis_name)
            whole = jax.tree.map(lambda x: jax.ShapeDtypeStruct(shape(x), x.dtype), params)
        return hidden_matrices.labels(name, whole, dimension_numbers, layout)

    return partition(
        {name: rule, hidden_matrices.FALLBACK: fallback},
        labels_fn=labels_fn,
        allow_unused=True,
    )


def named(learning_rate: float) -> Any:
    """The rate of a default fallback, under a name of its own in the state."""
    return Labeled("fallback_learning_rate", learning_rate)
