"""AdamW and Lion with a state of one byte, half a byte or two bytes for each moment.

    m, v ← decode(codes)
    m ← β₁m + (1−β₁)g,   v ← β₂v + (1−β₂)g²,   the step as in AdamW
    codes ← encode(m), encode(v), rounded by chance

m is kept as 2y/(1+|y|) and v as √y of y = x / scale, with a scale for each block of 128 entries.

Good for: models whose optimizer state does not fit: 2.1 or 1.1 bytes a parameter in place of 8.
Caveat: an entry of v that is far below the largest of its block is kept as a 65,000th of it (in 4
bits a 256th), so that its parameter moves less than it would. Embeddings are the usual case: leave
them out with `where`. Leaves below `min_size` entries stay float32.
Memory: 2.06 bytes per parameter, 1.03 for `lion_8bit`, 1.06 in 4 bits, 4 in bfloat16.
Source: Dettmers et al. 2021, arXiv 2110.02861; Li et al. 2023, arXiv 2309.01507, for 4 bits; the
two curves are those of arXiv 2602.23349.
"""

from __future__ import annotations

from typing import Any

from fnopt.codecs import BLOCK
from fnopt.core import GradientTransformation, composition
from fnopt.hyperparameters import Decay, LearningRate, NonNegative
from fnopt.optimizers.adamw import adamw
from fnopt.optimizers.lion import lion
from fnopt.wrappers.store import store


@composition
def adamw_8bit(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    decay: str = "decoupled",
    block: int = BLOCK,
    min_size: int = 4096,
    where: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """AdamW with moments of 8 bits. See `adamw`.

    Args:
      block: entries along the last axis that share a scale.
      min_size: smaller leaves keep a float32 state.
      where: whose state is stored so, as in `store`; None for all.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: 2.06 bytes per parameter.

    >>> import fnopt
    >>> fnopt.adamw_8bit(1e-3)  # doctest: +ELLIPSIS
    adamw_8bit(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, ...)
    """
    rule = adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        None,
        weight_decay,
        mask,
        nesterov=nesterov,
        decay=decay,
    )
    return store(
        rule,
        {"mu": "int8", "nu": "uint8"},
        block=block,
        min_size=min_size,
        where=where,
        axis_name=axis_name,
    )


@composition
def adamw_4bit(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    decay: str = "decoupled",
    block: int = BLOCK,
    min_size: int = 4096,
    where: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """AdamW with moments of 4 bits. See `adamw`.

    Args:
      block: entries along the last axis that share a scale.
      min_size: smaller leaves keep a float32 state.
      where: whose state is stored so, as in `store`; None for all.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: 1.06 bytes per parameter.

    >>> import fnopt
    >>> fnopt.adamw_4bit(1e-3)  # doctest: +ELLIPSIS
    adamw_4bit(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, ...)
    """
    rule = adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        None,
        weight_decay,
        mask,
        nesterov=nesterov,
        decay=decay,
    )
    return store(
        rule,
        {"mu": "int4", "nu": "uint4"},
        block=block,
        min_size=min_size,
        where=where,
        axis_name=axis_name,
    )


@composition
def adamw_bf16_state(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    decay: str = "decoupled",
    min_size: int = 0,
    where: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """AdamW with moments in bfloat16, stochastically rounded. See `adamw`.

    Args:
      min_size: smaller leaves keep a float32 state.
      where: whose state is stored so, as in `store`; None for all.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: 4 bytes per parameter.

    >>> import fnopt
    >>> fnopt.adamw_bf16_state(1e-3)  # doctest: +ELLIPSIS
    adamw_bf16_state(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, ...)
    """
    rule = adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        None,
        weight_decay,
        mask,
        nesterov=nesterov,
        decay=decay,
    )
    return store(
        rule,
        {"mu": "bfloat16", "nu": "bfloat16"},
        min_size=min_size,
        where=where,
        axis_name=axis_name,
    )


@composition
def lion_8bit(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    weight_decay: NonNegative = 1e-3,
    mask: Any = None,
    *,
    decay: str = "decoupled",
    block: int = BLOCK,
    min_size: int = 4096,
    where: Any = None,
    axis_name: Any = None,
) -> GradientTransformation:
    """Lion with a moment of 8 bits. See `lion`.

    Args:
      block: entries along the last axis that share a scale.
      min_size: smaller leaves keep a float32 state.
      where: whose state is stored so, as in `store`; None for all.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Memory: 1.03 bytes per parameter.

    >>> import fnopt
    >>> fnopt.lion_8bit(1e-4)  # doctest: +ELLIPSIS
    lion_8bit(learning_rate=0.0001, b1=0.9, b2=0.99, weight_decay=0.001, ...)
    """
    rule = lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=mask, decay=decay)
    return store(
        rule,
        {"mu": "int8"},
        block=block,
        min_size=min_size,
        where=where,
        axis_name=axis_name,
    )
