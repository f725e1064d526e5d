"""Arguments as one writes them on a command line: `name=value`, and what a value may be.

A value is a number, true, false, none, a list, tuple or dict of values, a call of a known function
as `linear_schedule(0, 1, 100)`, or else a word. The brackets of a tuple or a dict, which shells
read in their own way, may be left out: `10,20` and `10:0.1,20:0.5`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fnopt.training.choices import nearest
from fnopt.training.errors import CommandError

Calls = Mapping[str, Callable[..., Any]]
NAMES = {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}


class Foreign(Exception):
    """The text is Python, perhaps, but not of the part that is read here."""


def read_arguments(
    name: str, signature: inspect.Signature, words: Iterable[str], read: Callable[[str], Any]
) -> dict[str, Any]:
    """The keyword arguments that `name=value` words give to a function.

    Args:
      name: of the function, for errors.
      signature: the function's.
      words: each `name=value`.
      read: text -> value.

    Raises:
      CommandError: a word is no `name=value` or comes twice, the function has no such argument,
        or needs another.
    """
    known = signature.parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    given: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (equals and key.isidentifier() and text):
            raise CommandError(f"{word!r}: expected name=value, as in learning_rate=1e-3")
        if key in given:
            raise CommandError(f"{key} is given twice")
        if key not in known and not anything:
            hint = nearest(key, known) if known else "it takes none"
            raise CommandError(f"{name} has no argument {key!r}; {hint}")
        given[key] = read(text)
    missing = [
        p.name
        for p in known.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in given
    ]
    if missing:
        raise CommandError(f"{name} needs {' and '.join(f'{key}=...' for key in missing)}")
    return given


def read_value(text: str, calls: Calls) -> Any:
    """The value of a text; `calls` are the functions that it may call.

    Raises:
      CommandError: there are brackets in it and it cannot be read, or a call in it fails.
    """
    text = text.strip()
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    for whole in [text, f"{{{text}}}"] if ":" in text else [text]:
        try:
            return _evaluate(ast.parse(whole, mode="eval").body, calls)
        except (Foreign, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    if any(bracket in text for bracket in "()[]{}"):
        raise CommandError(
            f"cannot read {text!r}: expected numbers, quoted words, lists, dicts, or calls "
            "as linear_schedule(0, 1, 100)"
        )
    return text


def _evaluate(node: ast.expr, calls: Calls) -> Any:
    match node:
        case ast.Constant(bool() | int() | float() | str() | None as value):
            return value
        case ast.Name(name) if name.lower() in NAMES:
            return NAMES[name.lower()]
        case ast.UnaryOp(ast.USub(), operand):
            value = _evaluate(operand, calls)
            if isinstance(value, int | float):
                return -value
        case ast.List(items):
            return [_evaluate(item, calls) for item in items]
        case ast.Tuple(items):
            return tuple(_evaluate(item, calls) for item in items)
        case ast.Dict(keys, values) if None not in keys:
            pairs = [(_evaluate(k, calls), _evaluate(v, calls)) for k, v in zip(keys, values) if k]
            return _called("a dict", lambda: dict(pairs))
        case ast.Call(ast.Name(name), args, keywords):
            if name not in calls:
                begun = [known for known in calls if known.startswith(name)]
                raise CommandError(f"unknown function {name!r}; {nearest(name, begun or calls)}")
            given = [_evaluate(arg, calls) for arg in args]
            named = {k.arg: _evaluate(k.value, calls) for k in keywords if k.arg}
            if len(named) == len(keywords):
                return _called(name, lambda: calls[name](*given, **named))
    raise Foreign


def _called(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise CommandError(said if said.startswith(name) else f"{name}: {said}") from None
