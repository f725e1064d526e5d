import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix_oracles import degenerate, error, follow, newton_schulz, oracle

import fnopt
from fnopt.optimizers.muon_clip import clip_attention_logits, muon_clip, qk_clip
from fnopt.testing.oracles import trial

HEADS, SIZE = 3, 2


def rule(beta=0.95, nesterov=False):
    def start(shape):
        m = np.zeros(shape)

        def step(g):
            nonlocal m
            m = beta * m + (1 - beta) * g
            o = newton_schulz(beta * m + (1 - beta) * g if nesterov else m)
            return 0.2 * np.sqrt(max(shape)) * o

        return step

    return start


def test_without_logits_it_is_muon_in_float32():
    assert error(muon_clip(0.02), oracle(rule(), 0.02, weight_decay=0.1)) < 2e-5


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
def test_without_logits_it_is_muon_in_float64(layout, x64):
    ours = muon_clip(0.02, beta=0.8, nesterov=True, layout=layout, weight_decay=0.2)
    wanted = oracle(rule(0.8, True), 0.02, layout, weight_decay=0.2)
    assert error(ours, wanted, jnp.float64) < 1e-11
    assert follow(ours, wanted, *degenerate()) < 1e-9


def clipped(params, logits, threshold, alpha, layout):
    """Head by head: a slice of the outputs of each projection and bias."""
    params = {k: np.array(x) for k, x in params.items()}
    for h, s in enumerate(logits):
        gamma = min(1.0, threshold / s)
        outputs = slice(h * SIZE, (h + 1) * SIZE)
        for name, power in (("q_proj", alpha), ("k_proj", 1 - alpha)):
            where = (outputs, slice(None)) if layout == "out_in" else (slice(None), outputs)
            params[name][where] *= gamma**power
            params[f"{name}_bias"][outputs] *= gamma**power
    return params


SHAPES = {"q_proj": (6, 6), "k_proj": (6, 6), "v_proj": (6, 6)}
SHAPES |= {"q_proj_bias": (6,), "k_proj_bias": (6,)}


@pytest.mark.parametrize("layout", ["in_out", "out_in"])
@pytest.mark.parametrize(("threshold", "alpha"), [(100.0, 0.5), (30.0, 0.8)])
def test_oracle_of_clipped_steps(layout, threshold, alpha, x64):
    params, gradients = trial(shapes=SHAPES)
    ours = jax.tree.map(jnp.asarray, params)
    optimizer = muon_clip(0.02, threshold=threshold, alpha=alpha, layout=layout)
    state, rng = optimizer.init(ours), np.random.default_rng(1)
    mus = {k: rule()(s) for k, s in SHAPES.items() if len(s) == 2}
    bias = {k: (0.0, 0.0) for k, s in SHAPES.items() if len(s) == 1}

    @jax.jit
    def step(params, state, g, logits):
        updates, state = optimizer.update(g, state, params, max_logits=logits)
        return fnopt.apply_updates(params, updates), state

    for t, g in enumerate(gradients, 1):
        logits = rng.uniform(0, 200, HEADS)
        ours, state = step(ours, state, jax.tree.map(jnp.asarray, g), jnp.asarray(logits))
        for k, theta in params.items():
            if theta.ndim == 2:
                turn = (lambda x: x.T) if layout == "in_out" else (lambda x: x)
                params[k] = theta - 0.02 * (turn(mus[k](turn(g[k]))) + 0.1 * theta)
            else:
                m, v = bias[k]
                bias[k] = m, v = 0.9 * m + 0.1 * g[k], 0.95 * v + 0.05 * g[k] ** 2
                m, v = m / (1 - 0.9**t), v / (1 - 0.95**t)
                params[k] = theta - 3e-4 * m / (np.sqrt(v) + 1e-10)
        params = clipped(params, logits, threshold, alpha, layout)
        for k in params:
            np.testing.assert_allclose(ours[k], params[k], rtol=1e-10, atol=1e-11)


def logits_of(x, params):
    heads = [x @ params[w] + params[f"{w}_bias"][None] for w in ("q_proj", "k_proj")]
    q, k = (h.reshape(-1, HEADS, SIZE) for h in heads)
    return jnp.einsum("ihd,jhd->hij", q, k)


def test_the_largest_logit_is_then_the_threshold():
    keys = jax.random.split(jax.random.key(0), 6)
    params = {k: 3 * jax.random.normal(key, s) for key, (k, s) in zip(keys, SHAPES.items())}
    x = jax.random.normal(keys[5], (7, 6))
    most = jnp.abs(logits_of(x, params)).max((1, 2))
    threshold = float(jnp.sort(most)[1])
    new = jax.jit(lambda p, s: qk_clip(p, s, threshold))(params, most)
    np.testing.assert_allclose(
        jnp.abs(logits_of(x, new)).max((1, 2)), jnp.minimum(most, threshold), rtol=1e-5
    )
    np.testing.assert_array_equal(new["v_proj"], params["v_proj"])


def test_paths_and_layers():
    layer = {"query": {"kernel": jnp.ones((4, 6))}, "key": {"kernel": jnp.ones((4, 6))}}
    params = {"layer_0": {"attention": layer}, "layer_1": {"attention": layer}}
    logits = jnp.array([50.0, 400.0, jnp.inf])
    new = qk_clip(params, {"layer_1/attention": logits})
    assert new["layer_0"]["attention"]["query"]["kernel"] is layer["query"]["kernel"]
    row = new["layer_1"]["attention"]["query"]["kernel"][0]
    np.testing.assert_allclose(row, [1, 1, 0.5**1, 0.5, 1, 1])
    nested = qk_clip(params, {"layer_1": {"attention": logits}, "layer_0": None})
    jax.tree.map(np.testing.assert_array_equal, new, nested)

    stack = {
        "query": jnp.ones((2, 4, 6)),
        "key": jnp.ones((2, 4, 6)),
        "query_bias": jnp.ones((2, 6)),
    }
    both = qk_clip(stack, jnp.stack([logits, logits[::-1]]))
    np.testing.assert_allclose(both["query"][0], jnp.broadcast_to(row, (4, 6)))
    np.testing.assert_allclose(both["query_bias"][1], [1, 1, 0.5, 0.5, 1, 1])


def test_heads_of_their_own_axis_and_shared_keys():
    params = {
        "query": jnp.ones((4, 3, 2)),
        "key": jnp.ones((4, 1, 2)),
        "query_bias": jnp.ones((3, 2)),
    }
    logits = jnp.array([50.0, 400.0, 10.0])
    new = qk_clip(params, logits, alpha=1.0, heads_axis=-2)
    np.testing.assert_allclose(new["query"][0], [[1, 1], [0.25, 0.25], [1, 1]])
    np.testing.assert_allclose(new["query_bias"], [[1, 1], [0.25, 0.25], [1, 1]])
    assert new["key"] is params["key"]
    with pytest.raises(ValueError, match="shape"):
        qk_clip(params, logits, heads_axis=-2)
    shared = {"query": jnp.ones((4, 6)), "key": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match="for keys that heads share say alpha=1"):
        qk_clip(shared, logits)


def test_dtypes_and_other_leaves_stay():
    params = {"q_proj": jnp.ones((4, 6), jnp.bfloat16), "key": jax.random.key(0), "step_key": 3}
    new = qk_clip(params, jnp.full((3,), 400.0))
    assert new["q_proj"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(jnp.float32(new["q_proj"]), 0.5)
    assert new["key"] is params["key"]
    assert new["step_key"] == 3


def test_it_clips_behind_any_optimizer_and_under_a_mask():
    params = {"query": jnp.ones((2, 2)), "key": jnp.ones((2, 2))}
    logits = jnp.full((1,), 400.0)
    optimizer = fnopt.chain(fnopt.sgd(0.5), clip_attention_logits())
    updates, _ = optimizer.update(params, optimizer.init(params), params, max_logits=logits)
    np.testing.assert_allclose(updates["key"], 0.25 - 1)
    masked = fnopt.masked(optimizer, {"query": True, "key": False})
    given = {"query": logits, "key": logits}
    updates, _ = masked.update(params, masked.init(params), params, max_logits=given)
    np.testing.assert_allclose(updates["query"], 0.25 - 1)
    both = optax.with_extra_args_support(optax.chain(muon_clip(0.1)))
    updates, _ = both.update(params, both.init(params), params, max_logits=logits)
    assert updates["query"].shape == (2, 2)


def test_mistakes_are_named():
    params = {"query": jnp.ones((4, 6))}
    with pytest.raises(ValueError, match="no query or key under 'layer_3'"):
        qk_clip(params, {"layer_3": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"query of shape \(4, 6\) does not fit"):
        qk_clip(params, jnp.ones(4))
    with pytest.raises(ValueError, match="query_key_value is a query and a key by"):
        qk_clip({"query_key_value": jnp.ones((4, 18))}, jnp.ones(3))
    with pytest.raises(ValueError, match="muon_clip: threshold must be"):
        muon_clip(0.02, threshold=0.0)
    optimizer = muon_clip(0.02)
    with pytest.raises(TypeError, match="unknown extra argument 'max_logit'"):
        optimizer.update(params, optimizer.init(params), params, max_logit=jnp.ones(3))
