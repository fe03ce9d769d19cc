"""One rule for looking formulas up, and what it says when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from backprop_gpu.errors import BackpropError, ConfigError
from backprop_gpu.maths.activations import ACTIVATIONS
from backprop_gpu.maths.ledger import Denominator
from backprop_gpu.maths.losses import LOSSES, Huber, get_loss
from backprop_gpu.maths.optimizers import OPTIMIZERS, get_optimizer
from backprop_gpu.maths.registry import create
from backprop_gpu.maths.schedules import SCHEDULES, get_schedule

Get = Callable[[Any], Any]
GETTERS: list[tuple[str, Get, dict[str, Any]]] = [
    ("loss", get_loss, LOSSES),
    ("optimizer", get_optimizer, OPTIMIZERS),
    ("schedule", get_schedule, SCHEDULES),
]


@pytest.mark.parametrize(("kind", "get", "registry"), GETTERS)
def test_every_name_builds_its_class_with_defaults(kind: str, get: Get, registry: dict[str, Any]) -> None:
    for name, cls in registry.items():
        assert cls.name == name
        assert type(get(name)) is cls
        assert get(name) == get({"name": name}) == cls()


@pytest.mark.parametrize(("kind", "get", "registry"), GETTERS)
def test_unknown_names_say_what_is_known(kind: str, get: Get, registry: dict[str, Any]) -> None:
    for spec in ("zzz", {"name": "zzz"}):
        with pytest.raises(ConfigError) as caught:
            get(spec)
        assert str(caught.value) == f"unknown {kind} 'zzz'; known: {', '.join(registry)}"
    with pytest.raises(ConfigError, match=f"a {kind} needs a name; known:"):
        get({})


@pytest.mark.parametrize(
    ("get", "spec", "words"),
    [
        (get_loss, "squared_eror", "unknown loss 'squared_eror' (did you mean 'squared_error'?)"),
        (get_optimizer, "adm", "unknown optimizer 'adm' (did you mean 'adam'?)"),
        (get_schedule, "cosin", "unknown schedule 'cosin' (did you mean 'cosine'?)"),
        (
            get_optimizer,
            {"name": "sgd", "learning_rat": 0.1},
            "optimizer 'sgd' has no parameter 'learning_rat' (did you mean 'learning_rate'?); it takes learning_rate",
        ),
        (get_optimizer, {"name": "sgd", "slots": ()}, "optimizer 'sgd' has no parameter 'slots'"),
        (get_loss, {"name": "squared_error", "qqq": 1}, "loss 'squared_error' has no parameter 'qqq'; it takes none"),
        (get_loss, {"name": "huber", "delta": 1.0}, "loss 'huber' has no parameter 'delta'"),
        (get_schedule, {"name": "step", "evry": 5}, "(did you mean 'every'?); it takes every, gamma"),
    ],
)
def test_guesses(get: Get, spec: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get(spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, BackpropError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "thing", [get(name) for _, get, registry in GETTERS for name in registry] + [ACTIVATIONS["relu"], Denominator(2.0)]
)
def test_formulas_cannot_be_changed_after_they_were_checked(thing: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        thing.anything = 1


def test_the_spec_is_not_changed_and_objects_pass_through() -> None:
    spec = {"name": "huber", "threshold": 2.0}
    assert create("loss", LOSSES, spec) == Huber(threshold=2.0)
    assert spec == {"name": "huber", "threshold": 2.0}
    loss = Huber()
    assert create("loss", LOSSES, loss) is loss
