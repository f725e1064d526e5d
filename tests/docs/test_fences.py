"""The documentation is true: its Python runs and prints what it says, its links lead somewhere.

Every ```python fence of a page is executed, in order, in one namespace, in a process and a folder
of its own, with warnings as errors. A ```text fence that follows a ```python fence is what that
one prints. Run as a script, this file executes pages, each in a fork of a process that has imported
what they import.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
import types
import warnings
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {"python", "sh", "text", "math"}
LONG = 900  # seconds after which a page is given up


class Fence(NamedTuple):
    """A fenced block: its language, the number of its first line of content, and the content."""

    language: str
    line: int
    text: str


def fences(page):
    """The page's fenced blocks in order; an unclosed one is an error."""
    found, lines = [], page.read_text().splitlines()
    i = 0
    while i < len(lines):
        opening = re.match(r"\s*(`{3,})\s*(.*)", lines[i])
        if opening:
            ticks, language = opening.groups()
            start = i + 1
            i = start
            while i < len(lines) and not re.fullmatch(rf"\s*{ticks}\s*", lines[i]):
                i += 1
            if i == len(lines):
                raise SyntaxError(f"{page}:{start}: the fence is not closed")
            text = textwrap.dedent("\n".join(lines[start:i])) + "\n"
            found.append(Fence(language.strip(), start + 1, text))
        i += 1
    return found


def follows(page, first, second):
    """Whether nothing but blank lines stands between two fences."""
    lines = page.read_text().splitlines()
    end = first.line + len(first.text.splitlines())  # the number of the closing line
    return not any(line.strip() for line in lines[end : second.line - 2])


def execute(page, name=None):
    """Executes a page's Python; returns what went wrong, or None.

    A traceback shows the page's own lines, because each fence is compiled under the page's name
    and at its place.
    """
    module = types.ModuleType("page")
    sys.modules["page"] = module  # so that a factory that is defined on a page can be pickled
    shown, all_fences = name or page, fences(page)
    for i, fence in enumerate(all_fences):
        if fence.language != "python":
            continue
        printed = io.StringIO()
        try:
            code = compile("\n" * (fence.line - 1) + fence.text, str(page), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, module.__dict__)
        except BaseException as error:
            own = [f.lineno for f in traceback.extract_tb(error.__traceback__)
                   if f.filename == str(page)]  # fmt: skip
            line = own[0] if own else getattr(error, "lineno", None) or fence.line
            return f"{shown}:{line}: {traceback.format_exc()}"
        after = all_fences[i + 1] if i + 1 < len(all_fences) else None
        if after and after.language == "text" and follows(page, fence, after):
            got, wanted = tidy(printed.getvalue()), tidy(after.text)
            if got != wanted:
                return f"{shown}:{after.line}: the page says\n{wanted}\nbut this is printed\n{got}"
    return None


def tidy(text):
    """The lines without trailing blanks."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def apart(page, name, folder):
    """What `execute` returns, in a process of its own that stands in a folder."""
    result = Path(f"{folder}.json")
    if not (child := os.fork()):
        signal.alarm(LONG)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        result.write_text(json.dumps(execute(Path(page), name)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status or not result.exists():
        return f"{name}: the process ended early, with wait status {status}"
    return json.loads(result.read_text())


if __name__ == "__main__":
    warnings.simplefilter("error")
    for module in ("fnopt", "fnopt.testing", "fnopt.training", "optax"):
        importlib.import_module(module)
    print(json.dumps([apart(*words) for words in json.load(sys.stdin)]))
    sys.exit()

import pytest

from fnopt.cli import COMMANDS


@functools.cache
def pages():
    """Every page."""
    top = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    return top + sorted((ROOT / "docs").rglob("*.md"))


def with_python():
    return [page for page in pages() if any(f.language == "python" for f in fences(page))]


def label(page):
    return str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page.name)


def run(them, folder):
    """Label -> what went wrong on a page, or None; each page has a folder inside `folder`."""
    usual = Path(tempfile.gettempdir()) / "fnopt-test-cache"
    cache = Path(os.environ.get("FNOPT_TEST_CACHE", usual))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "MPLBACKEND": "Agg",
    }
    words = [(str(page), label(page), str(folder / str(i))) for i, page in enumerate(them)]
    for *_, its in words:
        Path(its).mkdir()
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(words), env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(map(label, them), json.loads(done.stdout), strict=True))


FAILING = {
    "assert.md": (
        "# A\n\n```python\nx = 1\n```\n\n```python\n\nassert x == 2\n```\n",
        (9, "AssertionError"),
    ),
    "syntax.md": ("```python\ndef f(:\n```\n", (2, "SyntaxError")),
    "warning.md": (
        "\n```python\nimport warnings\nwarnings.warn('old')\n```\n",
        (4, "UserWarning: old"),
    ),
    "printed.md": ("```python\nprint('a')\n```\n\n```text\nb\n```\n", (6, "this is printed\na")),
    "exit.md": ("  ```python\n  raise SystemExit(3)\n  ```\n", (2, "SystemExit")),
    "abort.md": ("```python\nimport os\nos._exit(3)\n```\n", ("", "ended early")),
    "name.md": ("```python\nprint(x)\n```\n", (2, "NameError")),  # not of another page
}
"""Name -> a page that fails, and the line and the word of its report."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Label -> what went wrong on each page of ours and on each that fails."""
    folder = tmp_path_factory.mktemp("pages")
    failing = [folder / name for name in FAILING]
    for page in failing:
        page.write_text(FAILING[page.name][0])
    return run([*failing, *with_python()], folder)


def test_python_runs(ran):
    problems = [ran[label(page)] for page in with_python() if ran[label(page)]]
    assert not problems, "\n" + "\n".join(problems)


def test_the_pages_are_there():
    names = {label(page) for page in with_python()}
    assert {"README.md", "docs/quickstart.md", "docs/textbook.md", "docs/from-optax.md"} <= names


def test_fences_have_a_known_language():
    """So that no Python hides under another name and stays unread."""
    found = [(page, fence) for page in pages() for fence in fences(page)]
    assert len(found) > 100
    assert not [
        f"{label(page)}:{fence.line}: {fence.language!r}"
        for page, fence in found
        if fence.language not in LANGUAGES
    ]


# Commands


def commands():
    """(page, line, words) of each command of ours in a shell fence."""
    for page in pages():
        for fence in fences(page):
            if fence.language != "sh":
                continue
            for i, line in enumerate(fence.text.splitlines()):
                for part in re.split(r"&&|\|\||[;|]", line.split(" #")[0]):
                    words = shlex.split(part)
                    if words and Path(words[0]).name == "fnopt":
                        yield page, fence.line + i, words


def mistaken(words):
    """What is wrong with a command: its subcommand, or an option that the parser does not know."""
    if len(words) < 2:
        return "fnopt needs a subcommand"
    if words[1] not in COMMANDS:
        return f"there is no fnopt {words[1]}"
    module = importlib.import_module(COMMANDS[words[1]][0])
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    module.add_arguments(parser)
    try:
        parser.parse_args(words[2:])
    except (argparse.ArgumentError, SystemExit) as error:
        return str(error)
    return None


def test_commands_exist():
    """The subcommand exists and its parser knows the options."""
    found = list(commands())
    assert len(found) > 10
    said = [(page, line, mistaken(words)) for page, line, words in found]
    assert not [f"{label(page)}:{line}: {word}" for page, line, word in said if word is not None]


# Links


def prose(page):
    """The page's lines by number, without fences and inline code."""
    lines = page.read_text().splitlines()
    for fence in fences(page):
        for i in range(fence.line - 2, fence.line + len(fence.text.splitlines())):
            lines[i] = ""
    return [(i, re.sub(r"`[^`]*`", "", line)) for i, line in enumerate(lines, 1)]


def links(page):
    """(line, target) of each inline link and image, and of each reference."""
    for i, line in prose(page):
        for target in re.findall(r"\]\(\s*<?([^)\s>]+)", line):
            yield i, target
        for target in re.findall(r"^\[[^\]]+\]:\s*(\S+)", line):
            yield i, target


def anchors(page):
    """The anchors that GitHub gives the page's headings."""
    lines = page.read_text().splitlines()
    heads = [lines[i - 1] for i, line in prose(page) if line.startswith("#")]
    words = [head.lstrip("#").strip().lower() for head in heads]
    return {re.sub(r"[^\w\- ]", "", word).replace(" ", "-") for word in words}


def broken(page):
    """What is wrong with the page's relative links."""
    for line, target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        aim = (page.parent / file).resolve() if file else page
        if not aim.exists():
            yield f"{label(page)}:{line}: {target} does not exist"
        elif anchor and (aim.suffix != ".md" or anchor not in anchors(aim)):
            yield f"{label(page)}:{line}: {target}: no such heading"


def test_links_lead_somewhere():
    assert not [words for page in pages() for words in broken(page)]


def test_every_page_can_be_reached():
    """From the README or the index, by links."""
    seen, todo = set(), [ROOT / "README.md", ROOT / "docs" / "index.md"]
    while todo:
        page = todo.pop()
        if page not in seen and page.suffix == ".md" and page.exists():
            seen.add(page)
            targets = [target.partition("#")[0] for _, target in links(page)]
            todo += [(page.parent / t).resolve() for t in targets if t and ":" not in t]
    assert not [label(page) for page in pages() if page not in seen and page.name != "CHANGELOG.md"]


# What these tests must catch


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_fence_is_reported_by_page_and_line(ran, name):
    line, word = FAILING[name][1]
    assert ran[name].startswith(f"{name}:{line}")
    assert word in ran[name]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("fnopt", "needs a subcommand"),
        ("fnopt trian", "there is no fnopt trian"),
        ("fnopt train --epoch 3", ""),
    ],
)
def test_a_mistaken_command_is_reported(words, complaint):
    assert complaint in mistaken(words.split())


def test_an_unclosed_fence_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n```python\nx = 1\n")
    with pytest.raises(SyntaxError, match=r"page.md:2"):
        fences(page)


def test_a_broken_link_is_reported(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](#one-two) [b](gone.md)\n![c](x.png)\n[d](#three) `[e](f)`\n")
    places = [words.split()[0] for words in broken(page)]
    assert places == ["page.md:2:", "page.md:3:", "page.md:4:"]
