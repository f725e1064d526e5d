"""A convergence card for every optimizer: its settings on three tasks, and the loss it reaches.

Each optimizer makes the same number of steps on a task, from the same start and with the same
batches. Settings are words of `fnopt train --set`; a word without a name is the learning rate, and
where there is none it is the one that `fnopt train` takes by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import fnopt
from fnopt.bench.tasks import TASKS, Task, descend
from fnopt.core import GradientTransformation
from fnopt.training import choices


class Run(NamedTuple):
    """An optimizer on a task.

    Attributes:
      settings: words of hyperparameters, with spaces between.
      loss: the final loss is below this.
    """

    settings: str
    loss: float


class Card(NamedTuple):
    """An optimizer's runs.

    Attributes:
      parabola: on the task of that name.
      rosenbrock: and so on.
      digits: and so on.
      note: where the numbers come from, if it is the method's nature.
    """

    parabola: Run
    rosenbrock: Run
    digits: Run
    note: str = ""

    def runs(self) -> dict[str, Run]:
        """The runs by their tasks' names."""
        return {name: getattr(self, name) for name in TASKS}


def words(name: str, run: Run) -> list[str]:
    """A run's settings as `name=value` words, the default rate written out."""
    inner = name if name in choices.optimizers() else "adam"
    factory = choices.find_optimizer(inner)
    rate = choices.rate_name(factory)
    given = [word if "=" in word else f"{rate}={word}" for word in run.settings.split()]
    if any(word.startswith(f"{rate}=") for word in given):
        return given
    default = choices.default_rate(inner)
    return given if default is None else [f"{rate}={default:g}", *given]


def make(name: str, run: Run, steps: int) -> GradientTransformation:
    """The optimizer of a run; a wrapper stands around `adam`."""
    if name in choices.optimizers():
        return choices.build(name, words(name, run), steps)
    wrapper: Callable[..., GradientTransformation] = getattr(fnopt, name)
    return wrapper(choices.build("adam", words(name, run), steps))


def reached(name: str, task_name: str) -> float:
    """Runs an optimizer's card on a task; the final loss."""
    task = TASKS[task_name]()
    optimizer = make(name, CARDS[name].runs()[task_name], task.steps)

    @jax.jit
    def final(init: Any, batches: Any, whole: Any) -> jax.Array:
        return descend(optimizer, Task(init, task.loss, batches, whole))

    return float(final(task.init, task.batches, task.whole))


CARDS = {
    "acprop": Card(Run("0.5", 2e-5), Run("0.001 b2=0.9", 3e-3), Run("", 0.1)),
    "adabelief": Card(Run("2", 1e-6), Run("0.1", 1e-6), Run("", 0.01)),
    "adadelta": Card(Run("1 eps=0.001", 0.007), Run("cosine:2", 0.007), Run("", 0.05)),
    "adafactor": Card(
        Run("cosine:0.5", 1e-4),
        Run("cosine:0.1", 0.02),
        Run("", 0.03),
        "vectors are not factored",
    ),
    "adagrad": Card(Run("5", 1e-4), Run("0.5", 0.03), Run("", 0.1), "the rate falls by itself"),
    "adahessian": Card(
        Run("1", 7e-5), Run("2", 2e-4), Run("", 0.05), "a random Hessian estimate each step"
    ),
    "adam": Card(Run("2", 1e-6), Run("0.1", 1e-6), Run("", 0.05)),
    "adam_atan2": Card(Run("1", 1e-6), Run("0.1", 1e-6), Run("", 0.03)),
    "adam_mini": Card(Run("2", 1e-6), Run("0.1", 1e-6), Run("", 0.05), "on vectors it is `adam`"),
    "adamax": Card(Run("5", 1e-6), Run("1", 1e-6), Run("", 0.05)),
    "adamaxw": Card(
        Run("5", 2e-5), Run("0.5", 7e-5), Run("", 0.05), "the decay pulls off the minimum"
    ),
    "adamuon": Card(
        Run("0.003 fallback=adam:1,b2=0.95,eps=1e-10", 0.007),
        Run("0.003 fallback=adam:0.1,b2=0.95,eps=1e-10", 0.001),
        Run("0.003 fallback=adam:0.003,b2=0.95,eps=1e-10", 0.02),
        "vectors go to Adam, at a constant rate here",
    ),
    "adamw": Card(
        Run("1", 1e-6), Run("0.1", 1e-6), Run("", 0.05), "the decay pulls off the minimum"
    ),
    "adamw_4bit": Card(
        Run("1", 1e-6), Run("0.1", 1e-6), Run("", 0.05), "the decay pulls off the minimum"
    ),
    "adamw_8bit": Card(
        Run("1", 1e-6), Run("0.1", 1e-6), Run("", 0.05), "the decay pulls off the minimum"
    ),
    "adamw_bf16_state": Card(
        Run("1", 1e-6), Run("0.1", 1e-6), Run("", 0.05), "the decay pulls off the minimum"
    ),
    "adan": Card(Run("5", 0.001), Run("0.01", 5e-6), Run("", 0.005)),
    "ademamix": Card(
        Run("5", 2e-5),
        Run("cosine:0.2", 0.002),
        Run("", 0.03),
        "the slow mean outlives the problem",
    ),
    "adopt": Card(Run("10", 1e-6), Run("2", 1e-6), Run("", 0.03)),
    "amsgrad": Card(Run("2", 1e-6), Run("0.2", 1e-6), Run("", 0.05)),
    "apollo": Card(Run("2", 1e-6), Run("0.1", 1e-6), Run("", 0.05), "on vectors it is `adam`"),
    "apollo_mini": Card(Run("2", 1e-6), Run("0.1", 1e-6), Run("", 0.05), "on vectors it is `adam`"),
    "came": Card(Run("1", 1e-6), Run("0.1", 1e-6), Run("", 0.002)),
    "cocob": Card(Run("", 0.07), Run("", 0.7), Run("", 0.02), "no rate: it bets carefully"),
    "dadapt_adamw": Card(Run("", 1e-6), Run("cosine:1", 1e-6), Run("", 0.01)),
    "dion": Card(
        Run("0.01 fallback=adam:1,b2=0.95,eps=1e-10", 0.007),
        Run("0.01 fallback=adam:0.1,b2=0.95,eps=1e-10", 0.001),
        Run("0.01 fallback=adam:0.003,b2=0.95,eps=1e-10", 0.005),
        "vectors go to Adam, at a constant rate here",
    ),
    "dog": Card(
        Run("", 0.5), Run("", 5.0), Run("", 0.2), "no rate: it starts with steps of a millionth"
    ),
    "dowg": Card(
        Run("", 5e-6),
        Run("cosine:1", 0.03),
        Run("", 0.1),
        "at 1 it diverges on the digits",
    ),
    "dpsgd": Card(
        Run("cosine:1 l2_norm_clip=1 noise_multiplier=0.1", 0.02),
        Run("cosine:0.05 l2_norm_clip=1 noise_multiplier=0.1", 0.003),
        Run("l2_norm_clip=1 noise_multiplier=0.1", 0.2),
        "clipped and under a little noise, too little for privacy",
    ),
    "fromage": Card(
        Run("cosine:0.05", 1e-6),
        Run("cosine:0.2", 5e-5),
        Run("", 0.1),
        "its steps do not shrink by themselves",
    ),
    "ftrl": Card(Run("20", 2e-5), Run("0.5", 0.03), Run("", 0.07), "the rate falls by itself"),
    "galore": Card(Run("2", 1e-6), Run("0.1", 1e-6), Run("", 0.001), "on vectors it is `adam`"),
    "lamb": Card(
        Run("cosine:0.1", 1e-5),
        Run("cosine:0.05", 2e-6),
        Run("", 0.03),
        "its steps do not shrink by themselves",
    ),
    "laprop": Card(Run("2", 1e-6), Run("0.05", 1e-6), Run("", 0.05)),
    "lars": Card(
        Run("cosine:10", 3e-6),
        Run("cosine:5", 1e-6),
        Run("", 0.07),
        "its steps do not shrink by themselves",
    ),
    "lion": Card(
        Run("cosine:0.5", 0.005),
        Run("cosine:0.02", 3e-6),
        Run("", 0.05),
        "signs do not shrink by themselves",
    ),
    "lion_8bit": Card(
        Run("cosine:0.5", 0.005),
        Run("cosine:0.02", 3e-6),
        Run("", 0.05),
        "signs do not shrink by themselves",
    ),
    "madgrad": Card(Run("2", 1e-6), Run("0.01", 1e-6), Run("", 0.03)),
    "mars_adamw": Card(
        Run("1 optimize_1d=true", 1e-5), Run("0.005 optimize_1d=true", 1e-5), Run("", 0.02)
    ),
    "mars_lion": Card(
        Run("cosine:0.5 optimize_1d=true", 3e-4),
        Run("cosine:0.01 optimize_1d=true", 1e-6),
        Run("", 0.05),
        "signs do not shrink by themselves",
    ),
    "mars_muon": Card(
        Run("0.003 fallback=adam:1,b2=0.95,eps=1e-10", 0.007),
        Run("0.003 fallback=adam:0.1,b2=0.95,eps=1e-10", 0.001),
        Run("0.003 fallback=adam:0.003,b2=0.95,eps=1e-10", 0.005),
        "vectors go to Adam, at a constant rate here",
    ),
    "momentum": Card(Run("0.5", 1e-6), Run("0.002", 1e-6), Run("", 0.01)),
    "momo": Card(Run("10", 7e-5), Run("", 1e-6), Run("", 0.03)),
    "momo_adam": Card(Run("1", 2e-5), Run("1", 1e-6), Run("", 0.01)),
    "nadam": Card(Run("1", 1e-6), Run("cosine:0.1", 1e-6), Run("", 0.05)),
    "nadamw": Card(
        Run("1", 1e-6), Run("cosine:0.1", 1e-6), Run("", 0.05), "the decay pulls off the minimum"
    ),
    "noisy_sgd": Card(Run("1", 0.003), Run("0.002", 0.02), Run("", 0.05), "under noise"),
    "novograd": Card(
        Run("cosine:0.1", 1e-6),
        Run("cosine:0.001", 1e-6),
        Run("", 0.07),
        "its steps do not shrink by themselves",
    ),
    "optimistic_adam_v2": Card(
        Run("cosine:2", 1e-6), Run("cosine:0.05", 5e-4), Run("", 0.05), "made for games"
    ),
    "optimistic_gradient_descent": Card(
        Run("0.5", 0.007), Run("0.001", 0.1), Run("", 0.05), "made for games"
    ),
    "polyak_sgd": Card(
        Run("10", 1e-6), Run("", 1e-6), Run("", 0.05), "the least loss, 0, is known"
    ),
    "prodigy": Card(Run("", 1e-6), Run("estim_lr_coef=0.1", 1e-6), Run("", 0.002)),
    "radam": Card(
        Run("2", 1e-5),
        Run("0.002 b2=0.9", 7e-6),
        Run("", 0.03),
        "its first steps are gradient descent, which bounds the rate",
    ),
    "ranger": Card(
        Run("5", 0.002),
        Run("0.005 b2=0.9", 1e-5),
        Run("", 0.02),
        "its first steps are gradient descent, which bounds the rate",
    ),
    "rmsprop": Card(Run("cosine:1", 2e-5), Run("cosine:0.01", 0.003), Run("", 0.05)),
    "rprop": Card(
        Run("0.2", 1e-6),
        Run("0.1", 3e-4),
        Run("min_step_size=0.0001 max_step_size=0.001", 0.2),
        "for full batches: on the digits its steps are held between bounds",
    ),
    "schedule_free_adamw": Card(Run("5", 5e-5), Run("0.1", 5e-3), Run("", 5e-3)),
    "schedule_free_sgd": Card(Run("5", 5e-5), Run("0.005", 3e-3), Run("", 5e-3)),
    "muon": Card(
        Run("0.02 fallback=adam:1,b2=0.95,eps=1e-10", 0.007),
        Run("0.02 fallback=adam:0.1,b2=0.95,eps=1e-10", 0.001),
        Run("0.02 fallback=adam:0.003,b2=0.95,eps=1e-10", 0.1),
        "vectors go to Adam, at a constant rate here",
    ),
    "muon_clip": Card(
        Run("0.003 fallback=adam:1,b2=0.95,eps=1e-10", 0.007),
        Run("0.003 fallback=adam:0.1,b2=0.95,eps=1e-10", 0.001),
        Run("0.003 fallback=adam:0.003,b2=0.95,eps=1e-10", 0.005),
        "vectors go to Adam, at a constant rate here",
    ),
    "normuon": Card(
        Run("0.02 fallback=adam:1,b2=0.95,eps=1e-10", 0.007),
        Run("0.02 fallback=adam:0.1,b2=0.95,eps=1e-10", 0.001),
        Run("0.02 fallback=adam:0.003,b2=0.95,eps=1e-10", 0.05),
        "vectors go to Adam, at a constant rate here",
    ),
    "psgd_kron": Card(
        Run("0.02 fallback=adam:1", 0.007),
        Run("0.02 fallback=adam:0.1", 0.001),
        Run("0.005 fallback=adam:0.003", 0.1),
        "vectors go to Adam, at a constant rate here",
    ),
    "scion": Card(
        Run("cosine:0.1 constrained=false", 5e-6),
        Run("cosine:0.01 constrained=false", 1e-6),
        Run("0.01 constrained=false", 0.005),
        "without the ball of radius 1, in which the minima are not",
    ),
    "shampoo": Card(
        Run("0.1 fallback=adam:1", 1e-6),
        Run("0.1 fallback=adam:0.1", 1e-6),
        Run("0.003 fallback=adam:0.003 update_every=50", 0.01),
        "vectors go to AdamW; few roots, for a CPU's sake",
    ),
    "sgd": Card(Run("1", 7e-5), Run("0.002", 0.02), Run("", 0.07)),
    "sign_sgd": Card(
        Run("cosine:0.2", 0.005),
        Run("cosine:0.002", 0.5),
        Run("", 0.2),
        "signs do not shrink by themselves",
    ),
    "soap": Card(
        Run("0.02 fallback=adam:1,b1=0.95,b2=0.95", 0.007),
        Run("0.02 fallback=adam:0.1,b1=0.95,b2=0.95", 0.001),
        Run("0.003 fallback=adam:0.003,b1=0.95,b2=0.95 precondition_frequency=50", 0.1),
        "vectors go to Adam, at a constant rate here",
    ),
    "signum": Card(
        Run("cosine:0.2", 5e-5),
        Run("cosine:0.01", 3e-4),
        Run("", 0.07),
        "signs do not shrink by themselves",
    ),
    "simplified_ademamix": Card(
        Run("cosine:0.2 b1=0.9", 1e-6),
        Run("cosine:0.002 b1=0.9", 1e-6),
        Run("", 0.1),
        "with its own b1 it overshoots the first two",
    ),
    "sm3": Card(Run("20", 1e-6), Run("5", 1e-6), Run("", 0.03)),
    "sophia": Card(
        Run("cosine:0.5", 0.07),
        Run("0.02", 1e-6),
        Run("", 0.07),
        "nearly signs, by its default `gamma`",
    ),
    "stable_adamw": Card(
        Run("1", 5e-4),
        Run("cosine:0.05", 2e-6),
        Run("", 0.05),
        "the decay pulls off the minimum",
    ),
    "yogi": Card(Run("2", 1e-6), Run("0.2", 1e-6), Run("", 0.01)),
    "cautious": Card(Run("2", 1e-6), Run("0.1", 1e-6), Run("", 0.03), "around `adam`"),
    "grokfast": Card(
        Run("5", 0.001), Run("0.1", 1e-6), Run("", 0.03), "around `adam`; the slow mean overshoots"
    ),
    "orthograd": Card(
        Run("0.2", 5.0),
        Run("0.0005", 7.0),
        Run("", 0.07),
        "around `adam`; it cannot change the length of the weights, on which the first two depend",
    ),
}
"""Name -> card: every public optimizer, and wrappers around `adam`."""
