import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnopt
from fnopt.bench import trees
from fnopt.bench.counts import count
from fnopt.testing.oracles import largest_error, leafwise

# The codes in float64, from the papers' curves, with the bits of the package's hash.

CURVES = {
    "int8": (-127, 127, lambda c: (c / 127) / (2 - abs(c / 127))),
    "int4": (-7, 7, lambda c: (c / 7) / (2 - abs(c / 7))),
    "uint8": (0, 255, lambda c: ((c + 1) / 256) ** 2),
    "uint4": (0, 15, lambda c: ((c + 1) / 16) ** 2),
}


def mixed(x):
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
    x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
    return x ^ (x >> 16)


def chances(shape, step, field):
    """Uniform numbers of each entry's place, the step and the field."""
    start = mixed((zlib.crc32(field.encode()) * 0x9E3779B1) % 2**32)
    index = np.arange(int(np.prod(shape)), dtype=object).reshape(shape)
    bits = np.vectorize(lambda i: mixed((i + start) % 2**32), otypes=[np.int64])(index)
    return ((bits + step * 0x9E3779B1) % 2**32 >> 8) / 2**24


def kept(x, codec, block, step, field):
    """x after it was written in codes and read again."""
    if not x.ndim:
        return x
    low, high, curve = CURVES[codec]
    numbers = np.array([curve(c) for c in range(low, high + 1)])
    u, result = chances(x.shape, step, field), np.zeros_like(x)
    for start in range(0, x.shape[-1], block):
        part = np.s_[..., start : start + block]
        scale = np.abs(x[part]).max(-1, keepdims=True)
        y = np.divide(x[part], scale, out=np.zeros_like(x[part]), where=scale > 0)
        below = np.clip(np.searchsorted(numbers, y, side="right") - 1, 0, len(numbers) - 2)
        share = (y - numbers[below]) / (numbers[below + 1] - numbers[below])
        result[part] = numbers[below + (share > u[part])] * scale
    return result


def adamw_oracle(rate, codecs, block, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4):
    @leafwise
    def run(theta, gradients):
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            theta = theta - rate * (u + weight_decay * theta)
            m, v = (
                kept(x, codec, block, t, field)
                for x, codec, field in zip((m, v), codecs, ("mu", "nu"))
            )
            yield theta

    return run


def lion_oracle(rate, block, b1=0.9, b2=0.99, weight_decay=1e-3):
    @leafwise
    def run(theta, gradients):
        m = np.zeros_like(theta)
        for t, g in enumerate(gradients, 1):
            u = np.sign(b1 * m + (1 - b1) * g)
            m = kept(b2 * m + (1 - b2) * g, "int8", block, t, "mu")
            theta = theta - rate * (u + weight_decay * theta)
            yield theta

    return run


SETTINGS = [dict(), dict(b1=0.8, b2=0.99, eps=1e-4, weight_decay=0.1)]
CODECS = {"adamw_8bit": ("int8", "uint8"), "adamw_4bit": ("int4", "uint4")}


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", CODECS)
def test_oracle_of_adamw(name, setting):
    """The state is float32 in any case: its codes' numbers have that precision."""
    optimizer = getattr(fnopt, name)(0.02, **setting, block=4, min_size=0)
    assert largest_error(optimizer, adamw_oracle(0.02, CODECS[name], 4, **setting)) < 2e-6


@pytest.mark.parametrize("setting", [dict(), dict(b1=0.8, b2=0.5, weight_decay=0.1)], ids=str)
def test_oracle_of_lion(setting):
    optimizer = fnopt.lion_8bit(0.02, **setting, block=4, min_size=0)
    assert largest_error(optimizer, lion_oracle(0.02, 4, **setting)) < 2e-6


@pytest.mark.parametrize("name", ["adamw_8bit", "adamw_4bit", "adamw_bf16_state", "lion_8bit"])
def test_in_float64_nothing_is_stored(name, x64):
    """Whoever asks for float64 does not want eight bits: the bare optimizer, to the last digit."""
    plain = fnopt.lion if name.startswith("lion") else fnopt.adamw
    params = {"w": jnp.linspace(-1.0, 1.0, 8192, dtype=jnp.float64).reshape(64, 128)}
    gradient = jax.tree.map(jnp.sin, params)
    one, other = getattr(fnopt, name)(0.1), plain(0.1)
    states = one.init(params), other.init(params)
    for _ in range(3):
        (a, s), (b, t) = (
            one.update(gradient, states[0], params),
            other.update(gradient, states[1], params),
        )
        states = s, t
        np.testing.assert_array_equal(a["w"], b["w"])


def test_a_bfloat16_state_goes_with_float32():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(32, 64)), jnp.float32)}
    pair = fnopt.adamw_bf16_state(0.01), fnopt.adamw(0.01)
    states, ends = [o.init(params) for o in pair], [params, params]
    assert fnopt.tree_get(states[0], "nu")["w"].dtype == jnp.bfloat16
    for _ in range(50):
        gradient = {"w": jnp.asarray(rng.normal(size=(32, 64)) + 0.5, jnp.float32)}
        for i, o in enumerate(pair):
            updates, states[i] = o.update(gradient, states[i], ends[i])
            ends[i] = fnopt.apply_updates(ends[i], updates)
    way = [np.linalg.norm(x["w"] - params["w"]) for x in ends]
    apart = np.linalg.norm(ends[0]["w"] - ends[1]["w"])
    assert apart < 0.01 * way[1]
    np.testing.assert_allclose(way[0], way[1], rtol=0.005)


@pytest.mark.parametrize(
    ("name", "bound"), [("adamw_8bit", 2.15), ("adamw_4bit", 1.15), ("lion_8bit", 1.08)]
)
def test_state_on_a_transformer(name, bound):
    found = count(getattr(fnopt, name)(1e-3), trees.transformer(), compiled=False)
    assert found.state <= bound


@pytest.mark.parametrize(
    ("name", "temporary"), [("adamw_8bit", 2.1), ("adamw_4bit", 1.1), ("lion_8bit", 1.07)]
)
def test_no_moment_is_stored_in_float32_on_the_way(name, temporary):
    """The temporaries are copies of the codes, which the CPU compiler makes of what is read twice,
    and the largest numbers of parts of blocks: no array of four bytes a parameter."""
    found = count(getattr(fnopt, name)(1e-3), trees.wide_leaf())
    assert found.temporary <= temporary
