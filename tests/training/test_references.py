"""`MODULE:NAME` on a command line."""

import os.path
import sys

import pytest

from fnopt.training.errors import CommandError
from fnopt.training.references import find


def test_what_is_there():
    assert find("os:path.join") is os.path.join
    assert find("os.path:join") is os.path.join
    assert find("sys:maxsize") == sys.maxsize


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("os", "expected MODULE:NAME, as optax:adamw, got 'os'"),
        ("os:", "expected MODULE:NAME"),
        (":join", "expected MODULE:NAME"),
        ("./a.py:f", "expected MODULE:NAME"),
        ("os.pth:join", "no module named 'os.pth'"),
        ("jsn:dumps", "no module named 'jsn'; did you mean 'json'?"),
        ("json.decodr:x", "no module named 'json.decodr'; did you mean 'json.decoder'?"),
        ("json:dump_s", "json has no 'dump_s'; did you mean 'dumps'?"),
        ("os:path.jion", "os.path has no 'jion'; did you mean 'join'?"),
        ("json:zzzzz", "json has no 'zzzzz'"),
    ],
)
def test_what_is_not_there(reference, words):
    with pytest.raises(CommandError) as caught:
        find(reference)
    assert str(caught.value).startswith(words)
