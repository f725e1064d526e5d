"""Optimizers and hyperparameters by name."""

import pytest

import fnopt
from fnopt.training import choices
from fnopt.training.errors import CommandError


def test_the_optimizers_are_the_public_factories_with_a_rate():
    known = choices.optimizers()
    assert {"sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"} <= set(known)
    assert known["adam"] is fnopt.adam
    assert "scale_by_learning_rate" not in known
    assert "clip" not in known
    assert "polyak_sgd" in known


NEEDED = {"dpsgd": ("l2_norm_clip=1", "noise_multiplier=0.5")}


def shown(name):
    """What an optimizer without hyperparameters looks like, or why it cannot be built."""
    try:
        return repr(choices.build(name, NEEDED.get(name, ()), 100))
    except Exception as error:
        return repr(error)


def test_every_one_is_built_without_hyperparameters():
    found = {name: shown(name) for name in choices.optimizers()}
    rates = {name: f"learning_rate={rate!r}" for name, rate in choices.LEARNING_RATES.items()}
    assert not {
        name: text
        for name, text in found.items()
        if not text.startswith(f"{name}(") or rates.get(name, "") not in text
    }


def test_the_default_rates_are_of_optimizers():
    assert set(choices.LEARNING_RATES) <= set(choices.optimizers())


def test_what_draws_random_numbers_gets_the_runs_seed():
    assert choices.build("noisy_sgd", (), 10, seed=3).arguments.arguments["seed"] == 3
    assert choices.build("noisy_sgd", ["seed=4"], 10, seed=3).arguments.arguments["seed"] == 4
    assert choices.build("dpsgd", NEEDED["dpsgd"], 10, seed=3).arguments.arguments["seed"] == 3


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("adam", ["learning_rate=1e-2", "b1=0.8"], lambda: fnopt.adam(1e-2, b1=0.8)),
        ("adam", ["b1=0.8", "b1=0.7"], lambda: fnopt.adam(1e-3, b1=0.7)),
        ("adam", ["nesterov=true"], lambda: fnopt.adam(1e-3, nesterov=True)),
        ("sgd", ["momentum=none", "nesterov=False"], lambda: fnopt.sgd(0.2)),
        ("sgd", [" learning_rate = 1 "], lambda: fnopt.sgd(1)),
        ("adam", ["adam.b1=0.5"], lambda: fnopt.adam(1e-3, b1=0.5)),
        (
            "adam",
            ["learning_rate=cosine:0.1"],
            lambda: fnopt.adam(fnopt.schedules.cosine_decay_schedule(0.1, 100)),
        ),
        (
            "adam",
            ["b1=linear:0.9,end_value=0.5"],
            lambda: fnopt.adam(1e-3, b1=fnopt.schedules.linear_schedule(0.9, 0.5, 100)),
        ),
        ("adamw", ["mask=none"], lambda: fnopt.adamw(1e-3)),
    ],
)
def test_hyperparameters(name, words, expected):
    assert choices.build(name, words, 100) == expected()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("adm", [], "unknown optimizer 'adm'; did you mean 'adam'?"),
        ("zzz", [], "unknown optimizer 'zzz'; there are acprop, adabelief"),
        ("adam", ["betas=0.9"], "adam has no hyperparameter 'betas'; "),
        ("adam", ["beta1=0.9"], "adam has no hyperparameter 'beta1'; did you mean"),
        ("adam", ["b1"], "--set b1: expected name=value"),
        ("adam", ["b1="], "--set b1=: expected name=value"),
        ("adam", ["=1"], "--set =1: expected name=value"),
        ("adam", ["b1=1.5"], "adam: b1 must be in [0, 1), got 1.5"),
        ("adam", ["learning_rate=-1"], "adam: learning_rate must be finite and at least 0"),
        ("adam", ["learning_rate=nan"], "adam: learning_rate must be finite and at least 0"),
        ("adam", ["learning_rate=fast"], "adam: learning_rate must be"),
        ("adam", ["learning_rate=none"], "adam: learning_rate must be"),
        ("adam", ["b1=true"], "adam: b1 must be"),
        ("adam", ["nesterov=2"], "adam: nesterov must be true or false, got 2"),
        ("adamw", ["mask=all"], "adamw: mask cannot be set from the command line"),
        ("adam", ["learning_rate=cosin:1"], "unknown schedule 'cosin'"),
        ("dpsgd", ["l2_norm_clip=1"], "dpsgd needs --set noise_multiplier=..."),
        ("adam", ["sgd.momentum=0.9"], "'sgd' takes no part; there are adam"),
    ],
)
def test_mistakes(name, words, message):
    with pytest.raises(CommandError) as error:
        choices.build(name, words, 100)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_in_a_comparison_words_go_to_their_owners():
    words = ["learning_rate=0.1", "sgd.momentum=0.9", "adam.learning_rate=0.01"]
    names = ("sgd", "adam")
    assert choices.assignments(words, "sgd", names) == {"learning_rate": "0.1", "momentum": "0.9"}
    assert choices.assignments(words, "adam", names) == {"learning_rate": "0.01"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-3", 1e-3), ("True", True), ("none", None), ("1_000", 1000), ("word", "word")],
)
def test_parse(text, value):
    found = choices.parse(text, 10)
    assert found == value
    assert type(found) is type(value)


def test_an_optimizer_may_be_given():
    made = choices.build("muon", ["learning_rate=0.02", "fallback=adam:0.1,b2=0.95"], 10)
    assert made == fnopt.muon(0.02, fallback=fnopt.adam(0.1, b2=0.95))
    usual = choices.build("muon", ["learning_rate=0.02", "fallback=lion"], 10)
    assert usual == fnopt.muon(0.02, fallback=fnopt.lion(2e-4))
    with_momentum = choices.build(
        "muon", ["learning_rate=0.02", "fallback=sgd:0.1,momentum=0.9"], 10
    )
    assert with_momentum == fnopt.muon(0.02, fallback=fnopt.sgd(0.1, momentum=0.9))
    for word, said in {
        "fallback=adamx:0.1": "did you mean 'adamax'",
        "fallback=adam:0.1,b9=1": "did you mean 'b2'",
        "fallback=adam:high": "learning_rate must be",
    }.items():
        with pytest.raises(CommandError, match=said):
            choices.build("muon", [word], 10)
