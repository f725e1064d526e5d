"""The page docs/catalogue.md, from the package: `python -m fnopt.bench.catalogue [--recount]`.

What an optimizer is, is good for, keeps in memory and comes from stands in the docstring of its
file, or of the factory if it is a wrapper; the page collects these lines, the convergence cards
and the measured costs.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

import fnopt
from fnopt import losses, projections, schedules
from fnopt.bench import trees
from fnopt.bench.cards import CARDS, Run, make, words
from fnopt.bench.counts import count, needs
from fnopt.bench.tasks import TASKS, start
from fnopt.core import GradientTransformation, factories
from fnopt.leaves import nbytes
from fnopt.training import choices

TITLES = ("Good for", "Caveat", "Memory", "Source")

HEAD = """# The catalogue

What the package holds, each line from its docstring. `python -m fnopt.bench.catalogue` writes this
page, and a test says when it is stale. To choose between the optimizers read
[How to choose](choose.md); "by its authors' tests" means that we know of no independent ones.

State and step are bytes per float32 parameter, of a transformer's hidden layers: those kept from
step to step, and those that one compiled `update` and `apply_updates` read and write, as the CPU
compiler counts them. The gradient, the params and the new params alone are 12. Sophia's step has an
estimate of the Hessian in it, DP-SGD's one example.
"""

CONVERGENCE = """
## Convergence cards

Each optimizer on three small problems: the settings, and a loss that it is below after the given
steps, which a test makes sure of. A setting without a name is the learning rate; `cosine:V` falls
from V to 0 over the steps. The words are those of `fnopt train --set`, and where the digits have
no rate of their own it is the one that `fnopt train` takes. The cards tell that a method works and
with what rate, not which is best: the problems are small, and rates were searched on a grid of
1, 2, 5.

"""


COLUMNS = ("names", "line", "good_for", "memory", "state", "step", "source")
"""An entry's fields as the table has them."""


class Entry(NamedTuple):
    """A file's factories, and what its docstring says.

    Attributes:
      names: the public names that are defined there.
      path: from the page to the file.
      line: the docstring's first sentence.
      good_for: the paragraph of that title, and so on.
      memory: what is kept per parameter.
      source: the paper, as it is written.
      state: bytes of state per parameter, of each name; "" of a wrapper.
      step: bytes of a step per parameter, of each name; "" of a wrapper.
    """

    names: tuple[str, ...]
    path: str
    line: str
    good_for: str
    memory: str
    source: str
    state: str = ""
    step: str = ""


def first_sentence(text: str | None) -> str:
    """Up to the first full stop that ends a sentence, on one line."""
    flat = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z(`])", flat)[0]


def paragraph(text: str, title: str) -> str:
    """What follows `title:` in a docstring, to the next title or empty line; "" if nothing does."""
    stop = "|".join(f"{t}:" for t in TITLES)
    found = re.search(rf"^{title}:(.*?)(?=\n\s*\n|\n(?:{stop})|\Z)", text, re.S | re.M)
    return " ".join(found.group(1).split()) if found else ""


def entry(names: Iterable[str], documented: Any) -> Entry:
    """The entry of factories that share a docstring: a module's, or a factory's."""
    text = inspect.getdoc(documented) or ""
    module = documented if isinstance(documented, ModuleType) else inspect.getmodule(documented)
    path = f"../{module.__name__.replace('.', '/')}.py"  # type: ignore[union-attr]
    rest = [paragraph(text, title) for title in TITLES if title != "Caveat"]
    return Entry(tuple(names), path, first_sentence(text), *rest)


def optimizers(steps: Mapping[str, str]) -> list[Entry]:
    """The files of the whole optimizers; `steps` has the bytes of a step by name."""
    files: dict[str, list[str]] = {}
    for name, factory in choices.optimizers().items():
        files.setdefault(factory.__module__, []).append(name)
    return [
        entry(names, sys.modules[module])._replace(
            state=", ".join(map(state_bytes, names)),
            step=", ".join(steps.get(name, "?") for name in names),
        )
        for module, names in files.items()
    ]


def state_bytes(name: str) -> str:
    """The bytes of state per parameter, with the settings of the digits' card."""
    tree = trees.transformer()
    state = jax.tree.leaves(jax.eval_shape(_made(name).init, tree))
    return _rounded(sum(map(nbytes, state)) / trees.size(tree))


def _made(name: str) -> GradientTransformation:
    return make(name, CARDS[name].digits if name in CARDS else Run("", 0.0), 1)


def step_bytes(name: str) -> str:
    """The bytes of a step per parameter, as the compiler counts them; seconds."""
    tree, rule = trees.transformer(), _made(name)
    return _rounded(count(rule, tree, **needs(rule, tree)).bytes)


def steps_on(text: str) -> dict[str, str]:
    """The bytes of a step by name, as a page has them."""
    found: dict[str, str] = {}
    for line in text.partition("## Optimizers")[2].partition("\n## ")[0].splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)]
        names = re.findall(r"`(\w+)`", cells[1]) if len(cells) > 1 else []
        found |= dict(zip(names, cells[COLUMNS.index("step") + 1].split(", "))) if names else {}
    return {name: number for name, number in found.items() if number != "?"}


def _rounded(number: float) -> str:
    return f"{round(number, 2):g}" if number < 1 else f"{number:.3g}"


def wrappers() -> list[Entry]:
    """The wrappers."""
    return [entry([name], factory) for name, factory in _of_shelf("wrappers").items()]


def _of_shelf(*shelves: str) -> dict[str, Callable[..., Any]]:
    return {
        name: factory
        for name, factory in factories(fnopt).items()
        if factory.__module__.split(".")[1] in shelves
    }


def parts() -> dict[str, Callable[..., Any]]:
    """The transformations that are no whole optimizers."""
    whole = choices.optimizers()
    found = _of_shelf("core", "transforms", "optimizers")
    return {name: factory for name, factory in found.items() if name not in whole}


def functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """A shelf's public functions, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_")
        and value.__module__.startswith(module.__name__)
    }  # fmt: skip


# Markdown


def cell(text: str) -> str:
    """A text that can stand in a table: bars escaped, arXiv numbers as links."""
    text = text.replace("|", r"\|")
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heads = list(head)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def described(entries: Iterable[Entry]) -> str:
    """The table of what each is, is good for, keeps and comes from."""
    rows = (
        [
            f"[{', '.join(f'`{name}`' for name in e.names)}]({e.path})",
            *(cell(getattr(e, column)) for column in COLUMNS[1:]),
        ]
        for e in entries
    )
    return table(("name", "what it does", "good for", *COLUMNS[3:]), rows)


def listed(found: dict[str, Callable[..., Any]]) -> str:
    """The table of names and first sentences."""
    rows = ([f"`{name}`", cell(first_sentence(inspect.getdoc(f)))] for name, f in found.items())
    return table(("name", "what it does"), rows)


def carded() -> str:
    """What the tasks are, and the table of the cards."""
    lines = []
    for name, task_of in TASKS.items():
        task, what = task_of(), first_sentence(task_of.__doc__).removesuffix(".")
        lines.append(f"- {name}: {what}; {task.steps} steps from a loss of {start(task):.3g}.\n")
    heads = [word for name in TASKS for word in (name, "below")]
    rows = (
        [
            f"`{name}`",
            *(word for run in card.runs().values() for word in shown(name, run)),
            card.note,
        ]
        for name, card in CARDS.items()
    )
    return "".join(lines) + "\n" + table(("name", *heads, "note"), rows)


def shown(name: str, run: Run) -> tuple[str, str]:
    """A run's settings and its loss."""
    given = " ".join(re.sub(r"^(max_)?learning_rate=", "", word) for word in words(name, run))
    return f"`{given}`" if given else "", f"{run.loss:g}".replace("e-0", "e-")


def page(steps: Mapping[str, str]) -> str:
    """The whole page; `steps` has the bytes of each optimizer's step."""
    sections = [
        (HEAD, "\n## Optimizers\n\n", described(optimizers(steps))),
        ("\n## Wrappers\n\n", described(wrappers())),
        (CONVERGENCE, carded()),
        ("\n## Transformations\n\n", listed(parts())),
        ("\n## Schedules\n\n", listed(functions(schedules))),
        ("\n## Losses\n\n", listed(functions(losses))),
        ("\n## Projections\n\n", listed(functions(projections))),
    ]
    return "".join("".join(words) for words in sections)


def main(out: str = "docs/catalogue.md", recount: bool = False) -> None:
    """Writes the page; `recount` counts the steps anew that it has already, which takes minutes."""
    file = Path(out)
    steps = steps_on(file.read_text()) if file.exists() and not recount else {}
    missing = [name for name in choices.optimizers() if name not in steps]
    file.write_text(page(steps | {name: step_bytes(name) for name in missing}))


if __name__ == "__main__":
    main(recount="--recount" in sys.argv[1:])
