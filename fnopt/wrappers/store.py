"""Optimizer state in one byte or two an entry: `store`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fnopt import codecs, masks
from fnopt.core import gradient_transformation
from fnopt.rule import routed
from fnopt.storage import stored


@gradient_transformation
def store(
    optimizer: Any,
    fields: Mapping[str, Any],
    *,
    block: int = codecs.BLOCK,
    min_size: int = 4096,
    where: Any = None,
    rounding: str = "stochastic",
    seed: int = 0,
    axis_name: Any = None,
) -> Any:
    """An optimizer that keeps fields of its state in few bytes.

        store(adamw(1e-3), {"mu": "int8", "nu": "uint8"})
        store(lion(1e-4), {"mu": "bfloat16"}, where="kernel", min_size=0)

    A field is decoded before the optimizer's update and encoded after it; the update itself is
    computed from what was not rounded yet. Codes have their parameter's shape and sharding, and
    float32 scales a last axis that is divided by the block. Leaves that are not float32 (of float64
    or complex params) stay, and so do those that codes would not make smaller.

    Signed codecs (int8, int4, dynamic8) are for moments and momentum; unsigned ones (uint8, uint4,
    dynamic8_unsigned) for second moments, which they never round to zero: a negative entry makes
    its block NaN. bfloat16 is for either. Rounding is stochastic, by a hash of the count and the
    place, so that averages that move less than a code in a step keep moving, and a run that is
    taken up again repeats itself.

    Args:
      optimizer: any transformation.
      fields: a field's name in the state, as "mu" -> a codec's name or a dtype.
      block: entries along the last axis that share a scale.
      min_size: smaller leaves stay as they are.
      where: a regular expression that is found in a parameter's path (`head/kernel`), a mask with
        the params' structure or a prefix of it, or a function of the params that returns one; None
        for all leaves.
      rounding: "stochastic", or "nearest", with which a slow average stops moving.
      seed: tells apart runs that should not round alike.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension: blocks, sizes and the places that rounding goes by are then those of
        whole leaves. It does not reach the optimizer, which has its own. (A `mu_dtype` of a rule
        without one rounds each part as a leaf of its own: `store` can take its place.)

    Raises:
      ValueError: an unknown codec, dtype or rounding; in `init`, a field that the state does not
        have, and an expression that is found in no path. Each lists what there is.

    Memory: one byte per stored value for the 8-bit codecs, half of one for the 4-bit ones, and 4
    bytes for each block; the optimizer's for the rest.
    Source: Dettmers et al. 2021, arXiv 2110.02861; Li et al. 2023, arXiv 2309.01507.
    """

    def chosen(params: Any) -> set[Any]:
        return masks.meant("store", where, params)

    rule = stored(
        optimizer,
        fields,
        owner="store",
        block=block,
        min_size=min_size,
        chosen=None if where is None else chosen,
        rounding=rounding,
        seed=seed,
        axis_name=axis_name,
    )
    return rule.init, rule.update, lambda params: routed(optimizer, params)
