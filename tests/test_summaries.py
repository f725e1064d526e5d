import resource
import sys

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import fnopt
from fnopt.bench import trees
from fnopt.leaves import nbytes
from fnopt.summaries import Total

PARAMS = {"w": jnp.ones((4, 2), jnp.bfloat16), "b": [jnp.zeros(2), None], "i": jnp.arange(2)}


def optimizer():
    return fnopt.chain(fnopt.clip_by_global_norm(1.0), fnopt.adamw(1e-3))


def test_bytes_rules_and_sharding():
    table = fnopt.summary(optimizer(), PARAMS)
    rows = {row.path: row for row in table.rows}
    assert rows["['w']"].bytes == 2 * 4 * 8
    assert rows["['w']"].rule == "chain"
    assert rows["['i']"].rule == "passed through"
    assert rows["(shared)"].bytes == 12
    assert table.param_bytes == 2 * 8 + 4 * 2 + 4 * 2
    assert table.state_bytes == sum(x.nbytes for x in jax.tree.leaves(optimizer().init(PARAMS)))
    assert table.state_bytes == sum(row.bytes for row in table.rows)
    assert "mu float32[4,2]" in str(table)


def test_totals_by_group_and_dtype():
    table = fnopt.summary(optimizer(), PARAMS)
    assert table.groups == {
        "b": Total(2, 8, 16),
        "i": Total(2, 8, 0),
        "w": Total(8, 16, 64),
        "(shared)": Total(0, 0, 12),
    }
    assert table.dtypes == {
        "float32": Total(2, 8, 84),
        "int32": Total(2, 8, 8),
        "bfloat16": Total(8, 16, 0),
    }


@pytest.mark.parametrize("part", ["groups", "dtypes"])
@pytest.mark.parametrize("make", [fnopt.adamw, fnopt.adafactor, fnopt.sgd])
def test_totals_add_up(part, make):
    table = fnopt.summary(make(1e-3), trees.transformer(2, 64, jnp.bfloat16))
    total = sum(getattr(table, part).values(), Total())
    assert total == Total(2 * (12 * 64**2 + 7 * 64), table.param_bytes, table.state_bytes)


def test_totals_are_printed():
    lines = [line.split() for line in str(fnopt.summary(optimizer(), PARAMS)).splitlines()]
    assert ["w", "8", "16", "64"] in lines
    assert ["(shared)", "0", "0", "12"] in lines
    assert ["bfloat16", "8", "16", "0"] in lines
    assert ["group", *["parameters", "param", "bytes", "state", "bytes"]] in lines


def test_one_group_is_not_printed():
    text = str(fnopt.summary(optimizer(), {"w": jnp.ones(3)}))
    assert "group" not in text
    assert "dtype" in text


def test_of_many_rows_equal_ones_are_printed_as_one():
    few = str(fnopt.summary(optimizer(), trees.transformer(2, 64)))
    assert "['layer_1']['query']" in few
    many = fnopt.summary(optimizer(), trees.transformer(30, 64))
    assert len(many.rows) == 301
    lines = str(many).splitlines()
    assert len(lines) < 24
    assert any("['layer_*']['query']" in line and "30 × 32,768" in line for line in lines)
    assert any(line.split()[:2] == ["layer_*", f"{30 * 49_600:,}"] for line in lines)


def test_rows_that_differ_stay_apart():
    params = trees.transformer(30, 64)
    params["layer_7"]["query"] = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    text = str(fnopt.summary(optimizer(), params))
    assert "29 × 32,768" in text
    assert "float32[64,32]" in text


# Nothing is allocated


def most_memory():
    """The most bytes that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_seven_billion_parameters_allocate_nothing():
    """Params and state would be 70 GB."""
    params = trees.transformer(35, 4096, jnp.bfloat16)
    alive = {id(x) for x in jax.live_arrays()}
    before = most_memory()
    table = fnopt.summary(optimizer(), params)
    after = most_memory()
    assert sum(t.parameters for t in table.groups.values()) == trees.size(params) > 7e9
    assert table.state_bytes == 8 * trees.size(params) + 12
    assert {id(x) for x in jax.live_arrays()} <= alive
    assert after - before < 5e8


def test_another_librarys_optimizer_allocates_nothing():
    huge = {"w": jax.ShapeDtypeStruct((10**6, 10**5), jnp.float32)}
    assert fnopt.summary(optax.adam(1e-3), huge).state_bytes == 8 * 10**11 + 4


def test_of_abstract_params_with_a_sharding():
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec("x", "y"))
    huge = {"w": jax.ShapeDtypeStruct((10**6, 10**5), jnp.bfloat16, sharding=sharding)}
    table = fnopt.summary(fnopt.adamw(1e-3), huge)
    assert table.state_bytes == 2 * 4 * 10**11 + 12
    assert "P('x', 'y')" in str(table)


def test_of_a_single_array():
    table = fnopt.summary(fnopt.adam(1e-3), jnp.ones((2, 3)))
    assert table.rows[0].bytes == 48
    assert table.rows[0].state == "mu float32[2,3], nu float32[2,3]"
    assert table.state_bytes == 60
    assert table.groups["params"] == Total(6, 24, 48)


def test_of_no_array():
    table = fnopt.summary(fnopt.adam(1e-3), {"a": None, "f": 1.0, "n": 3})
    assert [row.path for row in table.rows] == ["['a']", "['f']", "['n']", "(shared)"]
    assert table.param_bytes == 4
    assert table.groups["f"] == Total(1, 4, 8)


def test_what_is_no_optimizer():
    with pytest.raises(TypeError, match="summary: expected a transformation, got 3"):
        fnopt.summary(3, PARAMS)


# State in codes


def stored(**kwargs):
    return fnopt.store(fnopt.adamw(1e-3), {"mu": "int8", "nu": "uint4"}, min_size=0, **kwargs)


def test_state_in_codes():
    params = {"a": {"w": jnp.ones((4, 32))}, "b": jnp.ones(9)}
    table = fnopt.summary(stored(block=8), params)
    assert table.rows[0].state == "mu int8_8[4,32], nu uint4_8[4,32]"
    assert table.rows[0].bytes == 4 * 32 * 3 // 2 + 2 * 4 * 4 * 4
    assert table.dtypes["int4"].state_bytes == 64 + 5
    state = stored(block=8).init(params)
    assert table.state_bytes == sum(map(nbytes, jax.tree.leaves(state)))


def test_state_in_codes_of_a_single_array():
    table = fnopt.summary(stored(), jnp.ones((4, 256)))
    assert table.rows[0].state == "mu int8_128[4,256], nu uint4_128[4,256]"
