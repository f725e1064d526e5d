"""The text is the same at each reading, its parts are of different files, its pieces in it."""

import jax
import numpy as np
import pytest

from fnopt.bench import text


@pytest.fixture
def folder(tmp_path):
    """Twelve modules of the library's, by name in order, and what is none of its."""
    names = ["abc", "ast", "base64", "bdb", "bisect", "bz2", "calendar", "cmd", "code", "csv"]
    for i, name in enumerate([*names, "dis", "enum"]):
        (tmp_path / f"{name}.py").write_bytes(b"%d\r\n" % i)
    (tmp_path / "abc.py").write_bytes("é\n".encode())
    for other in ("_sysconfigdata__linux.py", "mine.py", "ast.txt"):
        (tmp_path / other).write_text("no")
    return str(tmp_path)


def test_files_are_read_in_order_and_every_tenth_is_held_out(folder):
    found = text.standard_library(folder)
    assert bytes(found.train) == b"\x7f\x7f\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"
    assert bytes(found.held_out) == b"1\n11\n"


def test_the_library_is_there_and_the_same_again():
    found = text.standard_library()
    assert len(found.train) > 1_000_000
    assert len(found.held_out) > 100_000
    assert max(found.train.max(), found.held_out.max()) < text.VOCABULARY
    assert b"\ndef " in bytes(found.train)
    again = text.standard_library.__wrapped__()
    for a, b in zip(found, again):
        np.testing.assert_array_equal(a, b)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        text.standard_library(str(tmp_path))


def test_pieces_are_of_the_text():
    tokens = np.arange(20, dtype=np.uint8)
    pieces = text.drawn(jax.random.key(0), tokens, (50, 4), 15)
    assert pieces.shape == (50, 4, 15)
    np.testing.assert_array_equal(np.diff(pieces.astype(int)), 1)
    assert set(pieces[..., 0].ravel()) == set(range(6))  # the last begins at 5
    np.testing.assert_array_equal(text.spread(tokens, 3, 6)[:, 0], [0, 7, 14])
    with pytest.raises(ValueError, match="20 tokens are fewer than the 21"):
        text.drawn(jax.random.key(0), tokens, (1,), 21)
    with pytest.raises(ValueError, match="20 tokens are fewer than the 21"):
        text.spread(tokens, 1, 21)


def test_labels_are_the_next_tokens():
    tokens, labels = text.following(np.array([[5, 6, 7]], np.uint8))
    assert (tokens.tolist(), labels.tolist()) == ([[5, 6]], [[6, 7]])
    assert tokens.dtype == labels.dtype == np.int32
