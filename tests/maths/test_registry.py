"""One rule for looking formulas up, and what it says when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from backprop_gpu.errors import BackpropError, ConfigError
from backprop_gpu.maths.activations import ACTIVATIONS, get_activation
from backprop_gpu.maths.ledger import Denominator
from backprop_gpu.maths.losses import LOSSES, Huber, Loss, get_loss
from backprop_gpu.maths.optimizers import OPTIMIZERS, Optimizer, get_optimizer
from backprop_gpu.maths.registry import create
from backprop_gpu.maths.schedules import SCHEDULES, Schedule, get_schedule

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
        (get_optimizer, {"name": "sgd", "state_names": ()}, "optimizer 'sgd' has no parameter 'state_names'"),
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
    assert create("loss", Loss, (), LOSSES, spec) == Huber(threshold=2.0)
    assert spec == {"name": "huber", "threshold": 2.0}
    loss = Huber()
    assert create("loss", Loss, (), LOSSES, loss) is loss


class Unfinished(Loss):
    """A loss without its derivative."""

    name, link_name, labels = "unfinished", "identity", "values"

    def value(self, xp: Any, Z: Any, Y: Any) -> Any:
        return Z - Y


class Finished(Unfinished):
    def delta(self, xp: Any, Z: Any, Y: Any) -> Any:
        return Z * 0.0 + 1.0


class Unlinked(Finished):
    link_name = "sigmod"


class Unlabelled(Finished):
    labels = "numbers"


def test_ones_own_subclass_passes_through_once_it_is_finished() -> None:
    loss = Finished()
    assert get_loss(loss) is loss
    for own, get in ((OwnRule(), get_optimizer), (OwnSchedule(), get_schedule)):
        assert get(own) is own


class OwnRule(Optimizer):
    name = "own"

    def apply(self, xp: Any, theta: Any, grad: Any, state: Any, scalars: Any, *, decay: bool) -> Any:
        return theta - grad, ()


class OwnSchedule(Schedule):
    name = "own"

    def factor(self, t: int, total: int) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("get", "spec", "words"),
    [
        (get_loss, Unfinished(), "Unfinished is no loss yet; define delta in it"),
        (get_loss, Loss(), "Loss is no loss yet; define name, link_name, labels, value, delta in it"),
        (get_loss, Finished, "Finished is a class; give an object of it as loss: Finished()"),
        (get_loss, Unlinked(), "labels must be one of binary, classes, groups, values and link_name one of identity,"),
        (get_loss, Unlabelled(), "got 'numbers' and 'identity'"),
        (
            get_loss,
            OwnRule(),
            "the loss must be a name, a mapping with a name and parameters, or an object of your own",
        ),
        (get_optimizer, Optimizer(), "Optimizer is no optimizer yet; define name, apply in it"),
        (get_schedule, Schedule(), "Schedule is no schedule yet; define name, factor in it"),
        (get_activation, replace(ACTIVATIONS["relu"], parameters={"slope": 1.0}), "parameters must be pairs"),
        (
            get_activation,
            replace(ACTIVATIONS["relu"], parameters=(("slope", "1"),)),
            "parameters must be pairs",
        ),
        (get_activation, replace(ACTIVATIONS["relu"], vjp_function=None), "has a name and two functions"),
        (get_activation, max, "must be a name, a mapping with a name, or an Activation('mine', forward, vjp)"),
    ],
)
def test_what_is_unfinished_is_refused(get: Get, spec: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get(spec)
    assert words in str(caught.value)
