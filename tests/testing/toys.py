"""Small optimizers written as plain pairs, which no boundary mends: one breaks each law."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnopt.hyperparameters import HyperparametersState, Kind, Tunable

tree_map = jax.tree.map
DECAY = Kind("in [0, 1)", lambda x: 0 <= x < 1)
RATE = Kind("finite and at least 0", lambda x: 0 <= x < float("inf"), tracked=True)


class Pair(NamedTuple):
    init: Any
    update: Any


def stateless(f):
    return Pair(lambda params: (), lambda updates, state, params=None: (f(updates), state))


def descend(updates, rate=0.01):
    return tree_map(lambda u: -rate * u, updates)


def sgd():
    return stateless(descend)


def drifting_momentum():
    """L1: the velocity is born in the params' dtype and becomes float32."""

    def update(updates, state, params=None):
        wide = jnp.float32
        state = tree_map(lambda v, u: 0.9 * v.astype(wide) + u.astype(wide), state, updates)
        return descend(state), state

    return Pair(lambda params: tree_map(jnp.zeros_like, params), update)


def stalling_second_moment():
    """L2: nu is rounded to the params' dtype, where 0.999 nu + 0.001 g^2 is nu again."""

    def update(updates, state, params=None):
        state = tree_map(lambda v, u: 0.999 * v + 0.001 * u * u, state, updates)
        return tree_map(lambda u, v: -0.01 * u / (jnp.sqrt(v) + 1e-8), updates, state), state

    return Pair(lambda params: tree_map(jnp.zeros_like, params), update)


def rounded_hyperparameter():
    """L3: a decay is stored in the dtype of the first parameter."""

    def init(params):
        return {"decay": jnp.full((), 0.999, jax.tree.leaves(params)[0].dtype)}

    return Pair(init, lambda updates, state, params=None: (descend(updates), state))


def rounds_in_between():
    """Computes in float32, but rounds its steps to the gradients' dtype before it halves them."""

    def step(u):
        narrow = (0.01 * u.astype(jnp.float32)).astype(u.dtype)
        return (-0.5 * narrow.astype(jnp.float32)).astype(u.dtype)

    return stateless(lambda updates: tree_map(step, updates))


def computes_in_float32():
    """Rounds once, at the end."""

    def step(u):
        return (-0.01 * u.astype(jnp.float32)).astype(u.dtype)

    return stateless(lambda updates: tree_map(step, updates))


def clip_by_rounded_norm():
    """L4: squares are added in the gradients' dtype."""

    def clip(updates):
        norm = jnp.sqrt(sum(jnp.sum(u * u) for u in jax.tree.leaves(updates)))
        return tree_map(lambda u: u / jnp.maximum(norm, 1.0).astype(u.dtype), updates)

    return stateless(clip)


def signs_by_division():
    """L5: 0 / 0."""
    return stateless(lambda updates: tree_map(lambda u: -0.01 * u / jnp.abs(u), updates))


def infinite_slope():
    """L5: finite at zero, but its derivative is not."""
    return stateless(lambda updates: tree_map(lambda u: -jnp.sqrt(u * u), updates))


def overflowing_squares():
    """L6: (1e20)^2 is infinite in float32."""

    def update(updates, state, params=None):
        state = tree_map(lambda s, u: s + u * u, state, updates)
        return tree_map(lambda u, s: -0.01 * u / (jnp.sqrt(s) + 1e-8), updates, state), state

    return Pair(lambda params: tree_map(jnp.zeros_like, params), update)


def frozen_by_a_spike():
    """L6: finite, but an entry that was huge once stays where it is."""

    def update(updates, state, params=None):
        state = tree_map(lambda s, u: jnp.maximum(s, jnp.abs(u)), state, updates)
        return tree_map(lambda u, s: jnp.where(s < 1e10, -0.01 * u, 0.0 * u), updates, state), state

    return Pair(lambda params: tree_map(jnp.zeros_like, params), update)


def keeps_the_params():
    """L9: the state is the params themselves."""
    return Pair(
        lambda params: params, lambda updates, state, params=None: (descend(updates), state)
    )


def keeps_one_buffer_twice():
    """L9: two fields of the state are one array."""

    def init(params):
        zeros = tree_map(jnp.zeros_like, params)
        return {"one": zeros, "two": zeros}

    return Pair(init, lambda updates, state, params=None: (descend(updates), state))


def at_home():
    """L10: the state is born on the default device, wherever the params are."""

    def init(params):
        return tree_map(lambda p: jnp.zeros(p.shape, p.dtype), params)

    def update(updates, state, params=None):
        state = tree_map(lambda v, u: 0.9 * v + u, state, updates)
        return descend(state), state

    return Pair(init, update)


def deaf(decay=0.9):
    """L11: a Tunable is shown and may be set, but the rule keeps what it was built with."""
    value = decay.value if isinstance(decay, Tunable) else decay

    def init(params):
        tunable = {"decay": jnp.float32(value)} if isinstance(decay, Tunable) else {}
        return HyperparametersState(jnp.int32(0), {}, tunable, ())

    return Pair(init, lambda updates, state, params=None: (descend(updates, value), state))


deaf.kinds = {"decay": DECAY}


def unreadable(learning_rate=0.01):
    """L11: the rate cannot be read."""
    return stateless(lambda updates: descend(updates, learning_rate))


def counting_schedules_only(learning_rate=0.01):
    """L13: a schedule brings a counter, a constant rate none."""
    if not callable(learning_rate):
        return stateless(lambda updates: descend(updates, learning_rate))

    def update(updates, state, params=None):
        return descend(updates, learning_rate(state["count"])), {"count": state["count"] + 1}

    return Pair(lambda params: {"count": jnp.int32(0)}, update)


counting_schedules_only.kinds = {"learning_rate": RATE}


def nameless():
    """L13: a tuple of moments."""

    def init(params):
        return (tree_map(jnp.zeros_like, params), tree_map(jnp.zeros_like, params))

    return Pair(init, lambda updates, state, params=None: (descend(updates), state))


class Average(NamedTuple):
    mean: Any

    def eval_params(self, params):
        return self.mean


def averages_in_float32():
    """L14: the averages come out in another dtype than the params'."""

    def init(params):
        return Average(tree_map(lambda p: p.astype(jnp.float32) + 0.0, params))

    return Pair(init, lambda updates, state, params=None: (descend(updates), state))


class Rounded(NamedTuple):
    mean: Any

    def eval_params(self, params):
        return tree_map(lambda m, p: m.astype(p.dtype), self.mean, params)


def averages():
    """Keeps L14."""
    init, update = averages_in_float32()
    return Pair(lambda params: Rounded(init(params).mean), update)


def keeps_state_for_everything():
    """L15: a leaf that is None, as behind a mask, has state too."""

    def init(params):
        fill = lambda p: jnp.zeros(() if p is None else p.shape)
        return tree_map(fill, params, is_leaf=lambda p: p is None)

    return Pair(init, lambda updates, state, params=None: (updates, state))


def counts_in_python():
    """L16: what it does depends on how often it was called."""
    calls = []

    def update(updates, state, params=None):
        calls.append(1)
        return descend(updates, 0.01 * len(calls)), state

    return Pair(lambda params: (), update)


def depends_on_the_order():
    """L16: later leaves move faster."""

    def scale(updates):
        found, treedef = jax.tree.flatten(updates)
        return treedef.unflatten(-0.01 * (1 + i) * u for i, u in enumerate(found))

    return stateless(scale)


def reads_the_values():
    """L17: init computes with NumPy."""

    def init(params):
        return {"norm": jnp.float32(sum(np.sum(np.square(p)) for p in jax.tree.leaves(params)))}

    return Pair(init, lambda updates, state, params=None: (descend(updates), state))


def sorts():
    """L18: a copy of every leaf."""

    def scale(u):
        return -u * jnp.median(jnp.abs(u)) if u.size else u

    return stateless(lambda updates: tree_map(scale, updates))


def needs_value():
    """Keeps the laws that `sgd` keeps, if it is given its value."""

    def update(updates, state, params=None, *, value):
        return tree_map(lambda u: -0.01 * jnp.asarray(value, u.dtype) * u, updates), state

    return Pair(lambda params: (), update)


# Wrappers with a mask: True marks what the rule sees.


def _select(mask, t, other):
    return tree_map(lambda m, x, o: x if m else o, mask, t, other)


def freezing(mask):
    def init(params):
        pairs, wanted = jax.tree.flatten(mask)[1], jax.tree.structure(params)
        if pairs != wanted:
            raise ValueError(f"the mask {pairs} is not like the params {wanted}")
        return {"v": tree_map(lambda m, p: jnp.zeros_like(p) if m else None, mask, params)}

    def update(updates, state, params=None):
        return _select(mask, descend(updates), tree_map(jnp.zeros_like, updates)), state

    return Pair(init, update)


def passing_gradients(mask):
    """L15: the raw gradients of masked-out leaves pass: ascent."""
    init, _ = freezing(mask)
    return Pair(init, lambda u, state, params=None: (_select(mask, descend(u), u), state))


def keeping_state(mask):
    """L15: masked-out leaves have state."""
    _, update = freezing(mask)
    return Pair(lambda params: {"v": tree_map(jnp.zeros_like, params)}, update)
