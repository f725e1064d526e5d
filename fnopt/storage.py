"""Fields of a state kept in fewer bytes: decoded before a rule's update, encoded after it.

`store` does this for any optimizer. A rule whose factory takes a dtype for one of its fields has
the parameter annotated `StoredMean` or the like; the boundary then does the same for that field.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnopt import codecs, leaves, mesh_axes, tree
from fnopt.rule import Rule
from fnopt.tree import PyTree


class StoreState(NamedTuple):
    """The count, int32 (); the optimizer's state, with chosen leaves narrow floats or `Encoded`."""

    count: Any
    inner: Any


@dataclasses.dataclass(frozen=True)
class StoredAs:
    """Marks a factory's parameter as the dtype or codec that a field of its state is kept in."""

    field: str


StoredMean = Annotated[Any, StoredAs("mu")]
StoredTrace = Annotated[Any, StoredAs("trace")]
StoredAverage = Annotated[Any, StoredAs("ema")]
StoredIterate = Annotated[Any, StoredAs("z")]
StoredSum = Annotated[Any, StoredAs("gathered")]

WIDE = ("float32", "float64")
"""The dtypes that a `Stored...` parameter takes for the compute dtype, like None."""


def marked(factory: Callable[..., Any]) -> dict[str, str]:
    """A factory's parameters that say how a field is stored, with the fields' names."""
    if not any("Stored" in str(hint) for hint in inspect.get_annotations(factory).values()):
        return {}
    hints = typing.get_type_hints(factory, include_extras=True)
    return {
        name: mark.field
        for name in inspect.signature(factory).parameters
        for mark in getattr(hints.get(name), "__metadata__", ())
        if isinstance(mark, StoredAs)
    }


def codec_name(owner: str, wanted: Any) -> str:
    """The name of a codec or dtype.

    Raises:
      ValueError: there is no such codec; it lists those there are.
      TypeError: it is neither a name nor a dtype.
    """
    name = _name(owner, wanted)
    if name not in codecs.PLAIN:
        codecs.find(owner, name)
    return name


def narrower(owner: str, wanted: Any) -> str | None:
    """The name that a `Stored...` parameter gives; None for the compute dtype, None or in `WIDE`.

    Raises:
      ValueError, TypeError: as `codec_name`.
    """
    wide = wanted is None or _name(owner, wanted) in WIDE
    return None if wide else codec_name(owner, wanted)


def _name(owner: str, wanted: Any) -> str:
    if isinstance(wanted, str):
        return wanted
    try:
        return jnp.dtype(wanted).name
    except TypeError:
        raise TypeError(f"{owner}: expected a codec's name or a dtype, got {wanted!r}") from None


def stored(
    rule: Rule,
    fields: Mapping[str, Any],
    *,
    owner: str | None = None,
    block: int = codecs.BLOCK,
    min_size: int = 0,
    chosen: Callable[[PyTree], set[Any]] | None = None,
    rounding: str = "stochastic",
    seed: int = 0,
    own: bool = False,
    axis_name: Any = None,
) -> Rule:
    """A rule with leaves of some fields of its state stored in fewer bytes.

    Only float32 leaves that a parameter has are, and only where the codes are the smaller.

    Args:
      rule: the rule.
      fields: a field's name -> a codec's name, or a dtype.
      owner: whose errors they are; the rule's name.
      block: entries along the last axis that share a scale.
      min_size: the least entries of a leaf.
      chosen: params -> the paths of those whose state is meant; None for all.
      rounding: "stochastic", or "nearest".
      seed: tells runs apart.
      own: leave out the members' fields of the name; the rule itself may have none either.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which leaves are split, each along
        its first dimension.

    Raises:
      ValueError: an unknown codec or rounding, and in `init` an unknown field.
    """
    owner = owner or rule.name
    names = {field: codec_name(owner, wanted) for field, wanted in fields.items()}
    if rounding not in ("stochastic", "nearest"):
        raise ValueError(f"{owner}: rounding must be 'stochastic' or 'nearest', got {rounding!r}")
    if not isinstance(block, int) or block < 1 or min_size < 0:
        raise ValueError(
            f"{owner}: block must be at least 1 and min_size at least 0, got {block}, {min_size}"
        )

    def written(kind: _Kind, xs: list[Any], count: Any) -> list[Any]:
        salt = zlib.crc32(kind.field.encode()) + seed

        def write(x: jax.Array) -> Any:
            bits = None
            if count is not None:
                bits = codecs.dither_bits(x.shape, count, salt, kind.axes)
            if kind.name in codecs.PLAIN:
                return codecs.narrowed(x, kind.name, bits)
            return codecs.encode(x, kind.name, block=kind.block, bits=bits, axes=kind.axes)

        return tree.map(write, xs)

    def replace(rows: list[Any], places: dict[_Kind, list[int]], count: Any) -> list[Any]:
        result = list(rows)
        for kind, members in places.items():
            new = written(kind, [rows[i] for i in members], count)
            for i, x in zip(members, new):
                result[i] = x
        return result

    def init(params: PyTree) -> StoreState:
        inner = rule.init(params)
        rows = tree.align(inner, params)
        meant = None if chosen is None else chosen(params)
        if not own:
            _require(owner, names, inner, rows)
        nodes = jax.tree.leaves(inner, is_leaf=codecs.is_encoded)
        taken = [codecs.is_encoded(x) for x in nodes for _ in jax.tree.leaves(x)]
        places: dict[_Kind, list[int]] = {}
        for i, (path, leaf, param_path, param) in enumerate(rows):
            if param is None or taken[i] or (meant is not None and param_path not in meant):
                continue
            field = tree.field_of(path, param_path)
            if field not in names or (own and _of_member(path, field)):
                continue
            axes = _split_axes(leaf, param, axis_name)
            shape = mesh_axes.whole_shape(leaf, axes) if axes else leaf.shape
            whole = jax.ShapeDtypeStruct(shape, leaf.dtype)
            if whole.size >= min_size and _shrinks(whole, names[field], block):
                places.setdefault(_Kind(field, names[field], block, axes), []).append(i)
        narrow = replace([row[1] for row in rows], places, None)
        return StoreState(tree.zero_count(), jax.tree.unflatten(jax.tree.structure(inner), narrow))

    def update(
        updates: PyTree, state: StoreState, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, StoreState]:
        pairs = jax.tree_util.tree_flatten_with_path(state.inner, is_leaf=codecs.is_encoded)[0]
        treedef: Any = jax.tree.structure(state.inner, is_leaf=codecs.is_encoded)
        places: dict[_Kind, list[int]] = {}
        like = updates if params is None else params
        axes = [()] * len(pairs) if axis_name is None else _axes_of(state.inner, like, axis_name)
        for i, (path, leaf) in enumerate(pairs):
            field = next((k for k in map(tree.key_name, path) if k in names), None)
            if field is None or (own and _of_member(path, field)):
                continue
            if codecs.is_encoded(leaf):
                places.setdefault(_Kind(field, leaf.codec, leaf.block, axes[i]), []).append(i)
            elif leaves.is_inexact(leaf) and leaf.dtype.name in codecs.PLAIN:
                places.setdefault(_Kind(field, leaf.dtype.name, 0, axes[i]), []).append(i)
        wide = [leaf for _, leaf in pairs]
        for kind, members in places.items():
            for i, x in zip(members, _read([wide[i] for i in members], kind.axes)):
                wide[i] = x
        new_updates, inner = rule.update(updates, treedef.unflatten(wide), params, **extra_args)
        count = tree.increment(state.count)
        rows = treedef.flatten_up_to(inner)
        narrow = replace(rows, places, count if rounding == "stochastic" else None)
        return new_updates, StoreState(count, treedef.unflatten(narrow))

    return rule._replace(init=init, update=update)


class _Kind(NamedTuple):
    """What leaves are written alike: of one field, in one codec and block, split over the same
    mesh axes."""

    field: str
    name: str
    block: int
    axes: tuple[Any, ...]


def _split_axes(leaf: Any, param: Any, axis_name: Any) -> tuple[Any, ...]:
    """The mesh axes that a state's leaf is split over: its parameter's, where it has its length
    along the first dimension and, as far as types tell, its values differ over them."""
    if axis_name is None or param is None or leaf.shape[:1] != param.shape[:1]:
        return ()
    own = mesh_axes.split_axes(leaf, axis_name)
    return tuple(name for name in mesh_axes.split_axes(param, axis_name) if name in own)


def _axes_of(inner: PyTree, like: PyTree, axis_name: Any) -> list[tuple[Any, ...]]:
    """For each leaf of a state the mesh axes that it is split over."""
    codes = tree.replace_nodes(inner, codecs.is_encoded, lambda x: x.codes)
    return [_split_axes(leaf, param, axis_name) for _, leaf, _, param in tree.align(codes, like)]


def _read(xs: list[Any], axes: tuple[Any, ...]) -> list[jax.Array]:
    """Float32 arrays of narrow floats, or of `Encoded` of one codec."""
    if not codecs.is_encoded(xs[0]):
        return tree.map(lambda x: x.astype(jnp.float32), xs)

    def read(codes: jax.Array, scales: jax.Array) -> jax.Array:
        return codecs.decode(codecs.Encoded(codes, scales, xs[0].codec, xs[0].block), axes)

    return tree.map(read, [x.codes for x in xs], [x.scales for x in xs])


def _shrinks(leaf: Any, name: str, block: int) -> bool:
    """Whether a leaf is float32 and its codes and scales are smaller."""
    if leaf.dtype != jnp.float32:
        return False
    if name in codecs.PLAIN:
        return True
    if not leaf.ndim or not leaf.size:
        return False
    codes = jax.ShapeDtypeStruct(leaf.shape, codecs.CODECS[name].dtype)
    scales = leaf.size // leaf.shape[-1] * -(-leaf.shape[-1] // block)
    return leaves.nbytes(codes) + 4 * scales < leaves.nbytes(leaf)


def _of_member(path: Sequence[Any], field: str) -> bool:
    """Whether a field's path goes through a member's state, which wrappers keep as `inner`."""
    words = [tree.key_name(key) for key in path]
    return "inner" in words[: words.index(field)]


def _require(owner: str, names: Mapping[str, str], inner: PyTree, rows: list[Any]) -> None:
    """Raises ValueError for a field that the state does not have, listing those of params."""
    known = {tree.field_of(path, at) for path, _, at, param in rows if param is not None}
    every = known | tree.field_names(inner)
    unknown = [name for name in names if name not in every]
    if unknown and known:
        raise ValueError(
            f"{owner}: the state has no field {', '.join(map(repr, unknown))}; the fields that "
            f"belong to params are {', '.join(sorted(known))}"
        )
