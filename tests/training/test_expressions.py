"""Values and arguments as one types them."""

import inspect
import math

import pytest

from fnopt.training.errors import CommandError
from fnopt.training.expressions import read_arguments, read_value

CALLS = {"double": lambda x, y=0: 2 * x + y, "fail": lambda: int("x")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 1e-3),
        ("-1E4", -1e4),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("true", True),
        ("False", False),
        ("none", None),
        ("None", None),
        ("word", "word"),
        ("1-sqrt", "1-sqrt"),
        ("'1-sqrt'", "1-sqrt"),
        ("two words", "two words"),
        ("a:b", "a:b"),
        ("10,20", (10, 20)),
        ("10,", (10,)),
        ("()", ()),
        ("[1, -2.5, [true, 'a']]", [1, -2.5, [True, "a"]]),
        ("10:0.1,20:-1", {10: 0.1, 20: -1}),
        ("{'a': {1: none}}", {"a": {1: None}}),
        ("double(3)", 6),
        ("[double(double(1), y=1), -double(2)]", [5, -4]),
    ],
)
def test_values(text, value):
    got = read_value(text, CALLS)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2", r"cannot read '\[1, 2'"),
        ("{1, 2}", "cannot read"),
        ("[x for x in y]", "cannot read"),
        ("(1).__class__", "cannot read"),
        ("double(*[1])", "cannot read"),
        ("double(**{})", "cannot read"),
        ("-[1]", "cannot read"),
        ("[1 + 2]", "cannot read"),
        ("[word]", "expected numbers, quoted words, lists"),
        ("doubl(3)", "unknown function 'doubl'; did you mean 'double'"),
        ("__import__('os')", "unknown function '__import__'"),
        ("double()", "double: .*missing 1 required"),
        ("fail()", "fail: invalid literal"),
        ("{[1]: 2}", "a dict: unhashable type"),
    ],
)
def test_what_cannot_be_read(text, words):
    with pytest.raises(CommandError, match=words):
        read_value(text, CALLS)


def rule(learning_rate, *, b1=0.9): ...


def open_rule(a, **others): ...


def test_arguments():
    read = lambda words, f=rule: read_arguments("rule", inspect.signature(f), words, str.upper)
    assert read(["learning_rate=a=b", "b1=x"]) == {"learning_rate": "A=B", "b1": "X"}
    assert read(["a=1", "other=2"], open_rule) == {"a": "1", "other": "2"}
    for words, message in (
        ([], "rule needs learning_rate=..."),
        (["learning_rate"], "'learning_rate': expected name=value"),
        (["learning_rate="], "expected name=value"),
        (["a.b=1"], "expected name=value"),
        (["learning_rate=1", "b2=1"], "rule has no argument 'b2'; did you mean 'b1'?"),
        (["b1=1", "b1=1"], "b1 is given twice"),
    ):
        with pytest.raises(CommandError) as caught:
            read(words)
        assert message in str(caught.value)
