"""`fnopt check`: says which laws anyone's optimizer keeps, and shows what breaks the others."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

from fnopt.hyperparameters import Tunable
from fnopt.schedules.command import SCHEDULES
from fnopt.testing.laws import BROKEN, KEPT, LAWS, NOT_APPLICABLE, Builder, Finding, Law, Subject
from fnopt.testing.laws.law import short
from fnopt.testing.laws.subject import gradients_of, params_of
from fnopt.training.errors import CommandError
from fnopt.training.expressions import read_arguments, read_value
from fnopt.training.references import find

DEVICES = 8  # virtual ones, for the law of shardings on a CPU
CALLS: dict[str, Callable[..., Any]] = {
    **SCHEDULES, "Tunable": Tunable, "key": jax.random.key, "dict": dict,
}  # fmt: skip
"""What a value may call."""

LINES, WIDTH = 2, 200  # of evidence for each law, without --verbose
COLORS = {KEPT: "green", BROKEN: "bold red", NOT_APPLICABLE: "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    add = parser.add_argument
    add("factory", metavar="MODULE:FACTORY", help="what builds the optimizer, as optax:adamw")
    add("arguments", metavar="ARGUMENT=VALUE", nargs="*", default=[], help="of the factory")
    add("--laws", metavar="CODES", help="only these, as L1,L5 (all of L1 to L18)")
    add(
        "--extra",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an extra argument of update, as value=1.0; may be repeated",
    )
    add(
        "--temp-fraction",
        metavar="F",
        type=float,
        help="the temporary memory that L18 allows, in params' bytes (0.25, for elementwise rules)",
    )
    add("--verbose", action="store_true", help="show all of the evidence, notes included")


EPILOG = """\
Modules in the current directory are found. A value is a number, true, false, none, a word, a list,
MODULE:NAME for anything of a module, or in quotes a call of a schedule, of Tunable, or of key:
  'learning_rate=cosine_decay_schedule(1e-3, 1000)'  'b1=Tunable(0.9)'  --extra 'key=key(0)'
For more than a command line can say, name a function of your own that builds the optimizer, or a
fnopt.testing.Builder.

The exit status is 0 if no law is broken, 1 if one is, 2 for bad input.

examples:
  fnopt check fnopt:lion learning_rate=1e-3
  fnopt check optax:adamw learning_rate=1e-3 --laws L1,L5,L6
  fnopt check fnopt:polyak_sgd --extra value=1.0
  fnopt check my_file:my_factory --verbose"""


def run(args: argparse.Namespace) -> int:
    """Runs the command: prints a table and the evidence.

    Returns:
      0 if no law is broken, else 1.

    Raises:
      CommandError: bad input: what to check, its arguments, or a law.
    """
    laws = find_laws(args.laws)
    ask_for_devices()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, once for each of many traces
        builder = find_builder(args.factory, args.arguments)
        if args.extra:
            builder = builder.calling(**read_arguments("update", ANYTHING, args.extra, read))
        if args.temp_fraction is not None:
            builder = builder.allowing(args.temp_fraction)
        try_a_step(builder)
        findings = show_table(builder, laws)
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    for line in paragraphs(findings, args.verbose):
        print(textwrap.fill(line, wide, subsequent_indent="    "))
    return int(any(finding.verdict == BROKEN for finding in findings))


def ask_for_devices() -> None:
    """Virtual devices for the law of shardings, unless the user or a running JAX has others."""
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not asked and getattr(jax.config, "jax_num_cpu_devices", -1) < 0:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", DEVICES)


def find_laws(codes: str | None) -> Mapping[str, Law]:
    """The laws of a list of codes; all of them for None."""
    if codes is None:
        return LAWS
    chosen = [code.strip().upper() for code in codes.split(",") if code.strip()]
    unknown = [code for code in chosen if code not in LAWS]
    if unknown or not chosen:
        raise CommandError(f"--laws {codes}: expected codes from L1 to L18, as L1,L5")
    return {code: law for code, law in LAWS.items() if code in chosen}


# From words to a builder


ANYTHING = inspect.signature(lambda **kwargs: None)


def find_builder(reference: str, words: Iterable[str]) -> Builder:
    """The builder of `MODULE:FACTORY` with the arguments given as `name=value` words.

    Raises:
      CommandError: it is not there, is no function, or does not take the arguments.
    """
    factory, words = find(reference), list(words)
    if isinstance(factory, Builder):
        if words:
            raise CommandError(f"{reference} is a Builder, which has its arguments already")
        return factory
    if not callable(factory):
        kind = type(factory).__name__
        raise CommandError(f"{reference} is no function that builds an optimizer but a {kind}")
    name = reference.rpartition(":")[2]
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        raise CommandError(f"{reference} does not show its arguments: wrap it") from None
    arguments = read_arguments(name, signature, words, read)
    try:
        builder = Builder(factory, **arguments)
        built = builder()
    except Exception as error:
        said = " ".join(str(error).split())
        kind = "" if said.startswith(f"{name}:") else f"{name} raised {type(error).__name__}: "
        raise CommandError(f"{kind}{said}") from None
    try:
        init, update = built
    except (TypeError, ValueError):
        init = update = None
    if not (callable(init) and callable(update)):
        raise CommandError(f"{name} gives no pair (init, update) but a {type(built).__name__}")
    return builder


def try_a_step(builder: Builder) -> None:
    """One step on a matrix, so that wrong input is not taken for eighteen broken laws."""
    params, gradients = (f(shapes={"kernel": (4, 3)}) for f in (params_of, gradients_of))
    try:
        subject = Subject(builder)
        subject.step(params, subject.init(params), gradients)
    except Exception as error:
        asks = re.search("argument|needs", str(error))
        hint = " (extra arguments of update: --extra name=value)" if asks else ""
        raise CommandError(f"{builder!r} cannot make a step: {short(error)}{hint}") from None


def read(text: str) -> Any:
    """A value: that of `read_value`, or what `MODULE:NAME` refers to."""
    value = read_value(text, CALLS)
    refers = isinstance(value, str) and re.fullmatch(r"[\w.]+:[A-Za-z_][\w.]*", value)
    return find(value) if refers else value


# What is shown


def show_table(builder: Builder, laws: Mapping[str, Law]) -> list[Finding]:
    """Judges by each law; on a terminal the table grows as rich draws it, else line by line."""
    findings: list[Finding] = []
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            with rich_table(repr(builder)) as show:
                for law in laws.values():
                    show([*findings, Finding(law, "...", ())])
                    findings.append(law.judge(builder))
                show(findings)
            return findings
    print(f"{builder!r}\n\n{'law':5}{'what it is about':41}verdict")
    for law in laws.values():
        findings.append(law.judge(builder))
        print(f"{law.code:5}{law.title:41}{findings[-1].verdict}", flush=True)
    print()
    return findings


@contextlib.contextmanager
def rich_table(title: str) -> Iterator[Callable[[list[Finding]], None]]:
    """A table on the terminal: gives the function that shows findings in it.

    Raises:
      ImportError: rich is not installed.
    """
    from rich import box
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def table(findings: list[Finding]) -> Any:
        drawn = Table(
            title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for name in ("law", "what it is about", "verdict"):
            drawn.add_column(name, no_wrap=True)
        for law, verdict, _ in findings:
            drawn.add_row(law.code, law.title, Text(verdict, COLORS.get(verdict, "")))
        return drawn

    with Live(table([])) as live:
        yield lambda findings: live.update(table(findings), refresh=True)


def paragraphs(findings: Iterable[Finding], verbose: bool) -> Iterator[str]:
    """The evidence by law, and the sum of it all."""
    counts = dict.fromkeys((KEPT, BROKEN, NOT_APPLICABLE), 0)
    for law, verdict, evidence in findings:
        counts[verdict] += 1
        if not evidence or (verdict == KEPT and not verbose):
            continue
        yield f"{law.code} {law.title}: {verdict}"
        if verdict == BROKEN:
            yield f"  the law: {law.says}"
        shown = evidence if verbose else evidence[:LINES]
        for words in shown:
            yield f"  - {words if verbose else textwrap.shorten(words, WIDTH, placeholder=' ...')}"
        if len(shown) < len(evidence):
            yield f"  - and {len(evidence) - len(shown)} more, which --verbose shows"
        yield ""
    yield ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
