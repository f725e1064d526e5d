"""Text that every machine with Python has: the sources of its standard library.

The library's modules in the order of their names, as tokens below 128: bytes of ASCII as they are,
others as 127. Every tenth file is held out. One version of Python has one text.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

VOCABULARY = 128
OTHER = 127  # what is no ASCII; the character of this number (delete) is in no source
EVERY = 10


class Text(NamedTuple):
    """Tokens, split by files.

    Attributes:
      train: (n,) uint8, the files one after another.
      held_out: (m,) uint8.
    """

    train: np.ndarray
    held_out: np.ndarray


@functools.cache
def standard_library(folder: str | None = None) -> Text:
    """The sources of the standard library's modules that are files, not packages.

    Args:
      folder: where they are; by default where Python has them.

    Raises:
      FileNotFoundError: there are fewer than two, or nothing is in them.
    """
    place = Path(folder or sysconfig.get_path("stdlib"))
    files = [place / f"{name}.py" for name in sorted(sys.stdlib_module_names)]
    files = [file for file in files if file.is_file()]
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for i, file in enumerate(files):
        text = np.frombuffer(file.read_bytes().replace(b"\r\n", b"\n"), np.uint8)
        parts[i % EVERY == 1].append(np.minimum(text, OTHER))
    if not all(sum(map(len, part)) for part in parts):
        raise FileNotFoundError(f"text: {place} has not the sources of the standard library")
    return Text(*map(np.concatenate, parts))


def windows(tokens: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Pieces of a text, (..., length), that begin at `starts`, (...)."""
    return tokens[np.asarray(starts)[..., None] + np.arange(length)]


def drawn(key: jax.Array, tokens: np.ndarray, shape: tuple[int, ...], length: int) -> np.ndarray:
    """Pieces of a text that begin anywhere, (*shape, length).

    Raises:
      ValueError: the text is shorter than a piece.
    """
    last = _last(tokens, length)
    return windows(tokens, np.asarray(jax.random.randint(key, shape, 0, last + 1)), length)


def spread(tokens: np.ndarray, count: int, length: int) -> np.ndarray:
    """Pieces of a text at even distances from its start to its end, (count, length).

    Raises:
      ValueError: the text is shorter than a piece.
    """
    last = _last(tokens, length)
    return windows(tokens, np.linspace(0, last, count).astype(np.int64), length)


def _last(tokens: np.ndarray, length: int) -> int:
    """Where the last piece begins."""
    if len(tokens) < length:
        raise ValueError(f"text: {len(tokens)} tokens are fewer than the {length} of a piece")
    return len(tokens) - length


def following(pieces: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pieces (..., t + 1) as int32 inputs and labels, (..., t) each: the next token of each."""
    pieces = jnp.asarray(pieces).astype(jnp.int32)
    return pieces[..., :-1], pieces[..., 1:]
