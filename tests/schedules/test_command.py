"""`fnopt schedule`: every schedule by name, its values, its picture; mistakes in one line."""

import numpy as np
import pytest
from PIL import Image

import fnopt
from fnopt.cli import main
from fnopt.schedules import command

# A call of each schedule as one types it, without the ending; (name and arguments, last count).
CALLS = {
    "alpha_warmup alpha=5 warmup_steps=20": 19,
    "b3_warmup b3=0.9999 warmup_steps=20 b1=0.8": 19,
    "constant value=0.3": 100,
    "linear init_value=0.1 end_value=0.7 transition_steps=41 transition_begin=3": 44,
    "polynomial init_value=1 end_value=0 power=2 transition_steps=1e3": 1000,
    "exponential_decay init_value=1 transition_steps=10 decay_rate=0.5 staircase=true": 50,
    "exponential_decay init_value=1 transition_steps=10 decay_rate=0.5 end_value=0.125": 30,
    "cosine_decay init_value=0.5 decay_steps=100 alpha=0.1": 100,
    "rex init_value=0.5 decay_steps=41": 41,
    "warmup_constant init_value=0 peak_value=1e-3 warmup_steps=10": 10,
    "warmup_cosine_decay init_value=0 peak_value=1e-3 warmup_steps=10 decay_steps=90": 90,
    "warmup_exponential_decay init_value=0 peak_value=1 warmup_steps=5 transition_steps=10 "
    "decay_rate=0.5": 50,
    "inverse_sqrt peak_value=1e-3 warmup_steps=100": 500,
    "wsd peak_value=1 warmup_steps=10 stable_steps=70 decay_steps=20 shape=1-sqrt": 100,
    "piecewise_constant init_value=1 boundaries_and_scales=10:0.1,30:0.5": 30,
    "piecewise_interpolate interpolate_type=cosine init_value=1 boundaries_and_scales={30:0.5}": 30,
    "fraction total_steps=200 fractions_and_values=0:0,0.05:1e-3,1:0": 200,
    "step init_value=0.1 step_size=30": 150,
    "multistep init_value=0.1 milestones=30,60": 60,
    "join schedules=[linear_schedule(0,1,50),cosine_decay_schedule(1,500)] boundaries=50,": 550,
    "linear_onecycle transition_steps=100 peak_value=1": 100,
    "cosine_onecycle transition_steps=100 peak_value=1": 100,
    "cyclic init_value=0.1 peak_value=1 up_steps=7 mode=triangular2": 35,
    "cosine_warm_restarts init_value=0.1 decay_steps=50 multiplier=2": 250,
    "sgdr cosine_kwargs=[{'init_value':0,'peak_value':1,'warmup_steps':5,'decay_steps':50}]": 50,
}  # fmt: skip


def schedule(*words):
    return main(["schedule", *map(str, words)])


def rows(out):
    """(count, value, note) of each line of the table."""
    lines = out.split("value\n")[1].split("wrote")[0].splitlines()
    return [(int(line[:12]), float(line[12:26]), line[26:].strip()) for line in lines]


def failure(capsys, *words):
    """The one line that a wrong command says."""
    assert schedule(*words) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("fnopt schedule: ")
    assert captured.out == ""
    return line.removeprefix("fnopt schedule: ")


def test_every_schedule_has_a_call():
    called = {command.make(name, words).name for name, *words in map(str.split, CALLS)}
    assert called == set(command.SCHEDULES)
    assert set(fnopt.schedules.schedule.factories(fnopt.schedules)) <= called


@pytest.mark.parametrize(("call", "last"), CALLS.items())
def test_the_ends(call, last, monkeypatch, capsys):
    """The table goes from the first value to where the value stays, or some lengths of its own."""
    monkeypatch.setattr(command, "draw", lambda *args: None)
    monkeypatch.setattr(command.style, "save", lambda figure, path: path)
    assert schedule(*call.split()) == 0
    made = command.make(call.split()[0], call.split()[1:])
    out = capsys.readouterr().out
    assert out.splitlines()[0] == repr(made)
    table = rows(out)
    assert "first" in table[0][2]
    assert "last" in table[-1][2]
    assert [table[0][0], table[-1][0]] == [0, last]
    for count, value, _ in table:
        np.testing.assert_allclose(value, made(count), rtol=1e-5, atol=1e-12)


def test_the_picture(workdir, capsys):
    call = "wsd peak_value=1 warmup_steps=10 stable_steps=70 decay_steps=20"
    assert schedule(*call.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "wrote schedule.png"
    with Image.open(workdir / "schedule.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), float)
    curve = np.abs(pixels - [0x00, 0x72, 0xB2]).max(axis=-1) < 24
    assert (pixels > 250).all(axis=-1).mean() > 0.8
    columns = np.flatnonzero(curve.any(axis=0))
    assert np.ptp(columns) > 0.8 * pixels.shape[1]  # from one side to the other
    top = [np.flatnonzero(curve[:, c]).min() for c in columns]
    assert np.median(top) == pytest.approx(min(top), abs=12)  # the plateau is most of it


def test_steps_and_out(workdir, capsys):
    words = ["multistep", "init_value=0.1", "--steps", 120, "milestones=30,60", "--out", "a/b.png"]
    assert schedule(*words) == 0
    out = capsys.readouterr().out
    assert rows(out)[-1][0] == 120
    assert "wrote a/b.png" in out
    assert (workdir / "a" / "b.png").stat().st_size > 5000
    assert schedule("constant", "value=1", "--steps", 1) == 0
    assert [count for count, *_ in rows(capsys.readouterr().out)] == [0, 1]


def test_what_is_highest_and_lowest_is_said(workdir, capsys):
    words = ["cyclic", "init_value=0.5", "peak_value=1", "up_steps=7", "--steps", "17"]
    assert schedule(*words) == 0
    notes = {note: count for count, _, note in rows(capsys.readouterr().out) if note}
    assert notes == {"first": 0, "highest": 7, "last": 17}


def test_a_schedule_as_it_prints(workdir, capsys):
    made = fnopt.join_schedules(
        [fnopt.wsd_schedule(1.0, 5, 10, 10, shape="cosine"), fnopt.constant_schedule(0.5)], (20,)
    )
    assert command.make(repr(made), []) == made
    assert schedule(repr(made)) == 0
    assert capsys.readouterr().out.startswith(repr(made))


WRONG = [
    ("cosin value=1", "unknown schedule 'cosin'; did you mean 'cosine_decay'?"),
    ("rex_shedule", "unknown schedule 'rex_shedule'; did you mean 'rex_schedule'?"),
    ("xyz", "unknown schedule 'xyz'; there are alpha_warmup, "),
    ("cosine_decay", "cosine_decay_schedule needs init_value=... and decay_steps=..."),
    ("cosine_decay init_valu=1", "has no argument 'init_valu'; did you mean 'init_value'?"),
    ("constant value", "'value': expected name=value, as in learning_rate=1e-3"),
    ("constant value=-1", "constant_schedule: value must be a finite number >= 0, got -1"),
    ("constant value=fast", "constant_schedule: value must be a finite number >= 0, got 'fast'"),
    ("constant value=1 value=2", "value is given twice"),
    ("constant value=1 --steps 0", "--steps must be at least 1, got 0"),
    ("constant value=1 --out a.pdf", "--out must name a .png file, got a.pdf"),
    ("multistep init_value=1 milestones=30", "milestones must be a list or a tuple, got 30"),
    ("piecewise_constant init_value=1 boundaries_and_scales=3", "must be a dict, got 3"),
    ("join schedules=[linear(0,1,5)] boundaries=5,", "did you mean 'linear_schedule'?"),
    ("join schedules=[linear_schedule(0,1] boundaries=5,", "cannot read '[linear_schedule(0,1]'"),
    ("join schedules=[3,4] boundaries=5,", "schedules must be functions of the count, got 3"),
    ("join schedules=[constant_schedule(-1)] boundaries=()", "constant_schedule: value must be"),
    ("constant_schedule(1", "cannot read 'constant_schedule(1'"),
    ("[constant_schedule(1)]", "'[constant_schedule(1)]' is not a schedule"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_mistakes(workdir, capsys, call, words):
    assert words in failure(capsys, *call.split())
    assert not list(workdir.iterdir())


def test_an_unwritable_picture(workdir, capsys):
    (workdir / "file").write_text("")
    assert schedule("constant", "value=1", "--out", "file/a.png") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fnopt schedule: cannot write file/a.png: ")


def test_help_lists_every_schedule(capsys):
    assert schedule("--help") == 0
    out = capsys.readouterr().out
    for name in command.SCHEDULES:
        assert f"  {name}: " in out
