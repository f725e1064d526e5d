"""The settings of a run of `fnopt train`: what its run folder keeps and `--resume` reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fnopt.training.errors import CommandError

DTYPES = ("float32", "bfloat16", "float64", "float16")
ACTIVATIONS = ("relu", "tanh", "gelu", "sigmoid")
GRADIENTS = ("autodiff", "backprop")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers.

    Attributes:
      optimizer: a public factory's name.
      set: `name=value` words for its hyperparameters.
      compare: names of optimizers to compare; then `optimizer` is not used.
      data: a file's absolute path; None for the digits.
      label: the label column of a .csv file.
      hidden: units of each hidden layer.
      activation: the hidden layers' function.
      epochs: passes over the training rows.
      batch_size: rows per step.
      seed: of the initial weights and the order of the rows.
      dtype: of the parameters.
      gradients: "autodiff", JAX's; "backprop", the chain rule written out in `fnopt.mlp`.
      log_layers: whether the metrics have each parameter's norms and rates.
    """

    optimizer: str = "adam"
    set: tuple[str, ...] = ()
    compare: tuple[str, ...] = ()
    data: str | None = None
    label: str | None = None
    hidden: tuple[int, ...] = (256, 128)
    activation: str = "relu"
    epochs: int = 30
    batch_size: int = 32
    seed: int = 0
    dtype: str = "float32"
    gradients: str = "autodiff"
    log_layers: bool = False

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON's types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @staticmethod
    def from_json(where: str, values: Any) -> Settings:
        """The settings that `as_json` gave.

        Raises:
          CommandError: a setting is missing, unknown or of the wrong type.
        """
        default = Settings()
        if not isinstance(values, Mapping) or set(values) != set(vars(default)):
            raise CommandError(f"{where}: its settings are not those of `fnopt train`")
        kept = {}
        for name, usual in vars(default).items():
            value = values[name]
            if isinstance(usual, tuple):
                entry = int if name == "hidden" else str
                good = isinstance(value, list) and all(type(v) is entry for v in value)
                value = tuple(value) if good else None
            if type(value) is not type(usual) and not (usual is None and isinstance(value, str)):
                raise CommandError(
                    f"{where}: the setting {name!r} has an unexpected value {values[name]!r}"
                )
            kept[name] = value
        known = {"dtype": DTYPES, "activation": ACTIVATIONS, "gradients": GRADIENTS}
        for name, choices in known.items():
            if kept[name] not in choices:
                raise CommandError(f"{where}: {name} must be one of {', '.join(choices)}")
        if min(kept["epochs"], kept["batch_size"], *kept["hidden"]) < 1:
            raise CommandError(f"{where}: epochs, batch_size and hidden must be positive")
        return Settings(**kept)
