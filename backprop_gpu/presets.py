"""``preset: tabular``: settings that suit tables, in the place of the defaults; what is given wins.

The one home of the preset's numbers: a configuration gets the sections of :func:`with_preset`, an estimator
(``estimators.tabular``) takes the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

HIDDEN = (128, 64)
ACTIVATION = "silu"
DROPOUT = 0.1
WEIGHT_DECAY = 1.0
SCHEDULE = "coslog"
LEARNING_RATE = 1e-2
VALIDATION = 0.15
BINS = 8  # of the piecewise-linear encoding of a number

NETS = 4
SHARED_ROWS = 500  # tables of so many rows and more have nets of members that share weights
MEMBERS = 8  # of all nets together


def batch_size_for(n: int) -> int:
    """Rows of a batch for a table of n rows: a sixteenth of them, a power of two from 32 to 256."""
    return int(2 ** int(np.clip(np.log2(max(n, 1) / 16.0), 5.0, 8.0)))


def epochs_for(n: int) -> int:
    """At most so many epochs: 200, of more than 10,000 rows fewer, down to 20."""
    return int(np.clip(2_000_000 // max(n, 1), 20, 200))


def patience_for(n: int) -> int:
    """Epochs without an improvement before training stops."""
    return 20 if n >= SHARED_ROWS else 40


def initializer_for(shared: bool) -> str:
    """That of members that share weights is what TabM begins with (docs/tabular.md)."""
    return "pytorch_uniform" if shared else "auto"


PRESETS: dict[str, dict[str, Any]] = {
    "tabular": {
        "data": {
            "standardize": "robust",
            "piecewise_linear": BINS,
            "missing": "indicator",
            "unknown": "ignore",
            "validation": VALIDATION,
        },
        "model": {
            "hidden": list(HIDDEN),
            "activation": ACTIVATION,
            "dropout": DROPOUT,
            "members": "auto",
            "adapters": "auto",
        },
        "optimizer": {"name": "adamw", "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
        "schedule": SCHEDULE,
        "training": {"epochs": "auto", "batch_size": "auto", "early_stopping": {"patience": "auto"}},
    }
}
"""Sections of a configuration, by the preset's name."""


def with_preset(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a configuration, with the settings of its preset where it gives none."""
    name = data.get("preset")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    return dict(data) if preset is None else _beneath(preset, data)


def _beneath(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, and what of the preset it leaves open; an optimizer or schedule of another name is left alone."""
    found = {**preset, **given}
    for key, value in preset.items():
        own = {"name": given[key]} if isinstance(given.get(key), str) else given.get(key)
        if isinstance(value, dict) and isinstance(own, dict):
            name = value.get("name")
            found[key] = _beneath(value, own) if own.get("name", name) == name else given[key]
    return found


def for_rows(data: dict[str, Any], n: int) -> dict[str, Any]:
    """A whole configuration in which what a table of n rows decides is no longer ``auto``."""
    model, training = dict(data["model"]), dict(data["training"])
    for name, rule in (("epochs", epochs_for), ("batch_size", batch_size_for)):
        training[name] = rule(n) if training[name] == "auto" else training[name]
    stopping = training["early_stopping"]
    if stopping is not None and stopping["patience"] == "auto":
        training["early_stopping"] = stopping | {"patience": patience_for(n)}
    alone = not model["hidden"] or bool(np.any(model["batch_norm"]))  # which members cannot share
    if model["adapters"] == "auto":
        model["adapters"] = "first" if n >= SHARED_ROWS and not alone else "none"
        if model["initializer"] == "auto":
            model["initializer"] = initializer_for(model["adapters"] == "first")
    if model["members"] == "auto":
        model["members"] = 1 if alone else NETS if model["adapters"] == "none" else MEMBERS
    return data | {"model": model, "training": training}
