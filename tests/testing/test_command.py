"""`fnopt check` on anyone's factory: the table, the evidence, the status; mistakes in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fnopt.cli import main
from fnopt.testing import LAWS, command

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "conformance.md").read_text()

MINE = """
import jax
from fnopt.testing import Builder

def sgd(learning_rate=0.1):
    scale = lambda updates: jax.tree.map(lambda u: -learning_rate * u, updates)
    return lambda params: (), lambda updates, state, params=None: (scale(updates), state)

def valued(learning_rate=0.1):
    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda u: -learning_rate * value * u, updates), state
    return lambda params: (), update

def needs_two(learning_rate, decay): return sgd(learning_rate)
def fussy(n=0): raise RuntimeError("not\\n  today")
def no_pair(): return 5
builder = Builder(valued, 0.3).calling(value=2.0)
number = 3
twice = lambda loss: 2 * loss
def called(f=None): return sgd(f(0.05))
"""


@pytest.fixture
def project(workdir, monkeypatch):
    """A folder to stand in with modules of one's own, which are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(workdir)])
    before = set(sys.modules)
    (workdir / "mine.py").write_text(MINE)
    yield workdir
    for name in set(sys.modules) - before:
        if str(workdir) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def check(*words):
    return main(["check", *map(str, words)])


def verdicts(out):
    """Code -> verdict, from the table."""
    found = re.findall(r"^(L\d+) +(.*?) {2,}(kept|broken|not applicable)$", out, re.MULTILINE)
    assert all(LAWS[code].title == title for code, title, _ in found)
    return {code: verdict for code, _, verdict in found}


def failure(capsys, *words):
    """The one line that a wrong command says."""
    assert check(*words) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("fnopt check: ")
    assert captured.out == ""
    return line.removeprefix("fnopt check: ")


def test_laws_kept(capsys):
    assert check("fnopt:lion", "learning_rate=1e-3", "--laws", "L5,L12,l14") == 0
    out = capsys.readouterr().out
    assert out.startswith("lion(learning_rate=0.001)\n")
    assert verdicts(out) == {"L5": "kept", "L12": "kept", "L14": "not applicable"}
    assert "it keeps no averages" in out
    assert out.endswith("2 kept, 0 broken, 1 not applicable\n")


def test_laws_broken(project, capsys):
    assert check("mine:sgd", "--laws", "L5,L8,L12", "learning_rate=0.5") == 1
    out = capsys.readouterr().out
    assert verdicts(out) == {"L5": "kept", "L8": "broken", "L12": "broken"}
    assert f"  the law: {LAWS['L8'].says}" in out
    assert "L5 Zero" not in out
    evidence = out.split("L8 Mistakes are named: broken")[1].split("\n\n")[0]
    assert "- a gradient is missing: is accepted silently" in evidence
    assert "which --verbose shows" in evidence
    assert len(evidence.splitlines()) == 5
    assert max(map(len, out.splitlines())) < 300
    assert check("mine:sgd", "--laws", "L8", "--verbose") == 1
    whole = capsys.readouterr().out
    assert "which --verbose shows" not in whole
    assert len(whole.splitlines()) > len(evidence.splitlines()) + 8


def test_the_page_shows_what_is_printed(project, capsys):
    """All eighteen laws, on the optimizer with a fault."""
    source = re.search(r"in `my_optimizer.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    (project / "my_optimizer.py").write_text(source)
    call, wanted = re.search(
        r"```sh\nfnopt (.*?)\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL
    ).groups()
    assert main(call.split()) == 1
    got = capsys.readouterr().out
    assert got == wanted
    assert verdicts(got).keys() == LAWS.keys()


def test_under_pytest_in_a_project_of_ones_own(project):
    """The page's test file, run as a third party would."""
    source = re.search(r"in `my_optimizer.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    (project / "my_optimizer.py").write_text(source)
    tests = re.search(r"One test for each law\..*?```python\n(.*?)```", PAGE, re.DOTALL)[1]
    (project / "test_it.py").write_text(f"from my_optimizer import my_rmsprop\n{tests}")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "L5 or L12"]
    path = os.pathsep.join([str(ROOT), str(project)])
    done = subprocess.run(
        words, cwd=project, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert "1 failed, 1 passed, 16 deselected" in done.stdout, done.stdout + done.stderr
    assert "LawError: my_rmsprop(learning_rate=0.01) breaks L5" in done.stdout


@pytest.mark.parametrize(
    ("factory", "broken"),
    [
        (["optax:adamw", "learning_rate=1e-3"], {"L5", "L6", "L8", "L12"}),
        (["optax:contrib.muon", "learning_rate=0.01"], {"L5", "L7", "L12"}),
        (["optax:polyak_sgd", "--extra", "value=1.0"], {"L5", "L7", "L12"}),
    ],
)
def test_optax_is_judged_and_does_not_crash(capsys, standard_numerics, factory, broken):
    codes = ["L5", "L6", "L7", "L8", "L9", "L11", "L12", "L13", "L14", "L17"]
    assert check(*factory, "--laws", ",".join(codes)) == 1
    found = verdicts(capsys.readouterr().out)
    assert list(found) == codes
    assert {code for code, verdict in found.items() if verdict == "broken"} >= broken
    assert found["L9"] == "kept"


def test_values(project, capsys):
    """Schedules, Tunables, extra arguments, things of a module, and builders."""
    few = ["--laws", "L14"]
    schedule = "learning_rate=cosine_decay_schedule(1e-3, 100)"
    assert check("fnopt:adam", schedule, "b1=Tunable(0.8)", "nesterov=true", *few) == 0
    out = capsys.readouterr().out
    assert "adam(learning_rate=cosine_decay_schedule(init_value=0.001, decay_steps=100" in out
    assert "b1=Tunable(value=0.8), nesterov=True)" in out
    assert check("mine:called", "f=mine:twice", *few) == 0
    assert check("mine:valued", "--extra", "value=1.5", *few) == 0
    assert check("mine:builder", *few) == 0
    assert check("mine:builder", "--extra", "value=1", *few) == 0
    assert capsys.readouterr().out.splitlines()[0] == "called(f=<lambda>)"


def test_the_memory_that_is_allowed(capsys):
    words = ["fnopt:lamb", "learning_rate=0.1", "--laws", "L18"]
    assert check(*words, "--temp-fraction", "0") == 1
    assert "expected at most 0.0" in capsys.readouterr().out
    assert check(*words, "--temp-fraction", "9") == 0


WRONG = [
    ("optx:adamw", "no module named 'optx'; did you mean 'optax'?"),
    ("optax.contribb:muon", "no module named 'optax.contribb'; did you mean 'optax.contrib'?"),
    ("optax:adamm", "optax has no 'adamm'; did you mean 'adam'?"),
    ("optax:contrib.muonn", "optax.contrib has no 'muonn'; did you mean 'muon'?"),
    ("optax", "expected MODULE:NAME, as optax:adamw, got 'optax'"),
    ("mine.py:sgd", "expected MODULE:NAME, as optax:adamw, got 'mine.py:sgd'"),
    ("mine:number", "mine:number is no function that builds an optimizer but a int"),
    ("mine:no_pair", "no_pair gives no pair (init, update) but a int"),
    ("mine:fussy", "fussy raised RuntimeError: not today"),
    ("mine:needs_two", "needs_two needs learning_rate=... and decay=..."),
    ("mine:sgd learn_rate=1", "sgd has no argument 'learn_rate'; did you mean 'learning_rate'?"),
    ("mine:no_pair a=1", "no_pair has no argument 'a'; it takes none"),
    ("mine:sgd 0.1", "'0.1': expected name=value, as in learning_rate=1e-3"),
    ("mine:sgd learning_rate=fast", "cannot make a step: raised"),
    ("mine:sgd learning_rate=mine:numbr", "mine has no 'numbr'; did you mean 'number'?"),
    ("mine:sgd learning_rate=cosine(1)", "unknown function 'cosine'; there are cosine_decay_sche"),
    ("mine:valued", "(extra arguments of update: --extra name=value)"),
    ("mine:valued --extra value", "'value': expected name=value"),
    ("mine:builder value=1", "mine:builder is a Builder, which has its arguments already"),
    ("fnopt:adamw learning_rate=-1", "adamw: learning_rate must be finite and at least 0, got -1"),
    ("mine:sgd --laws L20", "--laws L20: expected codes from L1 to L18, as L1,L5"),
    ("mine:sgd --laws ,", "--laws ,: expected codes"),
    ("unended:f", "importing unended raised NameError: name 'x' is not defined (unended.py, line"),
    ("crooked:f", "importing crooked raised SyntaxError: invalid syntax (crooked.py, line 1)"),
    ("lacking:f", "importing lacking raised ModuleNotFoundError: No module named 'nowhere' (lack"),
    ("", "the following arguments are required: MODULE:FACTORY (see fnopt check --help)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_mistakes(project, capsys, call, words):
    (project / "unended.py").write_text("\ny = x\n")
    (project / "crooked.py").write_text("def f(:\n")
    (project / "lacking.py").write_text("import nowhere\n")
    assert words in failure(capsys, *call.split())


def on_its_own(folder, *words, **variables):
    """The command in a process with variables of its own, where None means unset."""
    wanted = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | variables
    environment = {name: value for name, value in wanted.items() if value is not None}
    words = [sys.executable, "-m", "fnopt", "check", *words]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_devices_are_made_for_the_law_of_shardings(project):
    """Also where the factory's module starts JAX; and what the user has set stays."""
    (project / "eager.py").write_text(f"import jax.numpy as jnp\nx = jnp.zeros(3)\n{MINE}")
    words = ["eager:sgd", "--laws", "L10"]
    done = on_its_own(project, *words, XLA_FLAGS=None)
    assert verdicts(done.stdout) == {"L10": "kept"}, done.stderr
    assert done.stderr == ""
    one = "--xla_force_host_platform_device_count=1"
    done = on_its_own(project, *words, XLA_FLAGS=one)
    assert verdicts(done.stdout) == {"L10": "not applicable"}
    assert "it needs 2 devices" in done.stdout
    done = on_its_own(project, *words, XLA_FLAGS=None, JAX_NUM_CPU_DEVICES="1")
    assert verdicts(done.stdout) == {"L10": "not applicable"}


def test_on_a_terminal_rich_draws_the_table(project, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(command.shutil, "get_terminal_size", lambda: os.terminal_size((60, 24)))
    assert check("mine:sgd", "--laws", "L12,L14") == 1
    out = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", capsys.readouterr().out)
    assert "verdict" in out
    assert re.search(r"L12 +Identity +broken", out)
    assert re.search(r"L14 +eval_params reaches.* not applicable", out)
    paragraphs = out.split("L12 Identity: broken")[1].splitlines()
    assert max(map(len, paragraphs)) <= 60


def test_without_rich_the_table_is_plain(project, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert check("mine:sgd", "--laws", "L12,L14") == 1
    assert verdicts(capsys.readouterr().out) == {"L12": "broken", "L14": "not applicable"}
