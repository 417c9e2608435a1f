"""Names that fields had in version 0.1, which stored runs and files of users may still have."""

import re
import warnings
from collections.abc import Mapping
from typing import Any

NOW = {
    "normalise": "normalize",
    "distill_on": "distill_target",
    "vote_weights": "ensemble_weights",
    "training.optimiser": "optimizer",
    "training.epoch": "val_every",
    "loss.weight": "distill_weight",
    "loss.alpha": "ema_decay",
    "inference.vote": "flows",
    "problem.trace": "gae_lambda",
    ".previous": "teacher_run",
    ".start": "start_from",
}
"""Today's name of a field, by its former one, or by its group's name and its former one."""

NOW_OF_CLASS = {"RFS": {"share": "kd_weight"}, "Reinforcement": {"trace": "gae_lambda"}}
"""Today's names of the options of a class, by their former ones."""


def with_new_names(values: Any, group: str = "") -> Any:
    """Nested values with today's names of fields.

    Args:
        values: of a configuration, or of a part of one.
        group: name of the field that holds them.
    """
    if isinstance(values, list):
        return [with_new_names(value) for value in values]
    if not isinstance(values, Mapping):
        return values
    new = {
        _path(key, group): with_new_names(value, key if isinstance(key, str) else "")
        for key, value in values.items()
    }
    options = new.get("init_args")
    if isinstance(options, dict):
        module, _, name = str(new.get("class_path")).rpartition(".")
        is_own = module.partition(".")[0] in ("", "omnitraining")
        names = NOW_OF_CLASS.get(name, {}) if is_own else {}
        new["init_args"] = {names.get(name, name): value for name, value in options.items()}
    return new


def options_with_new_names(options: list[str]) -> list[str]:
    """Options of the command line with today's names of fields.

    Warns:
        UserWarning: one of them has a former name.
    """
    changed = []
    for option in options:
        name, equals, value = option.partition("=")
        new = f"--{_path(name[2:])}" if re.fullmatch(r"--[\w.]+", name) else name
        if new != name:
            warnings.warn(f"{name} is called {new} now", stacklevel=2)
        changed.append(f"{new}{equals}{value}")
    return changed


def _path(key: Any, group: str = "") -> Any:
    """Today's name of a key, or of each part of one with dots."""
    if not isinstance(key, str):
        return key
    names = []
    for part in key.split("."):
        names.append(NOW.get(f"{group}.{part}", NOW.get(part, part)))
        group = group if part == "init_args" else part
    return ".".join(names)
