"""The `fnopt` command around its subcommands."""

import subprocess
import sys

import pytest

import fnopt
from fnopt import cli
from fnopt.training.errors import CommandError


@pytest.fixture
def command(monkeypatch):
    """Registers a command whose `run` is given, and returns its exit status."""

    class Module:
        @staticmethod
        def add_arguments(parser):
            parser.add_argument("--n", type=int)

    def registered(run, *words):
        Module.run = staticmethod(run)
        monkeypatch.setitem(cli.COMMANDS, "probe", ("probe_module", "probe things"))
        monkeypatch.setitem(sys.modules, "probe_module", Module)
        return cli.main(["probe", *words])

    return registered


def test_arguments_and_status_pass_through(command):
    assert command(lambda args: args.n, "--n", "5") == 5


def test_an_error_is_one_line_and_status_2(command, capsys):
    def run(args):
        raise CommandError("no such\n  file: x")

    assert command(run) == 2
    assert capsys.readouterr().err == "fnopt probe: no such file: x\n"


def test_a_usage_error_is_one_line_and_status_2(command, capsys):
    assert command(lambda args: 0, "--n", "x") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fnopt probe: argument --n: invalid int value: 'x'")


def test_abbreviations_are_not_guessed(command, capsys):
    assert command(lambda args: 0, "--m", "3") == 2
    assert "unrecognized arguments: --m 3" in capsys.readouterr().err


def test_ctrl_c(command, capsys):
    def run(args):
        raise KeyboardInterrupt

    assert command(run) == 130
    assert capsys.readouterr().err.strip() == "fnopt probe: interrupted"


def test_other_errors_are_bugs_and_stay(command):
    with pytest.raises(ZeroDivisionError):
        command(lambda args: 1 // 0)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(capsys, words):
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for name, (_, line) in cli.COMMANDS.items():
        assert name in out
        assert line in out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fnopt {fnopt.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "fnopt: unknown command 'trian'; did you mean 'train'?"),
        (["xyz"], f"fnopt: unknown command 'xyz'; there are {', '.join(cli.COMMANDS)}"),
        (["--what"], "fnopt: unrecognized arguments: --what (see fnopt --help)"),
    ],
)
def test_mistakes(capsys, words, message):
    assert cli.main(words) == 2
    assert capsys.readouterr().err == message + "\n"


def test_only_the_chosen_command_is_imported():
    program = (
        "import sys; from fnopt.cli import main; main(['--help']); "
        "heavy = {'rich', 'matplotlib', 'sklearn', 'orbax', 'fnopt.training.command', "
        "'fnopt.landscape'}; print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_training_is_imported_without_the_extras():
    program = (
        "import sys; import fnopt.training, fnopt.training.trial, fnopt.training.command; "
        "print(sorted({'rich', 'matplotlib', 'sklearn', 'orbax'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "fnopt", "train", "--optimizer", "adm"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == "fnopt train: unknown optimizer 'adm'; did you mean 'adam'?\n"


def test_options_are_not_abbreviated(capsys):
    assert cli.main(["train", "--epoch", "1"]) == 2
    assert "--epoch" in capsys.readouterr().err
