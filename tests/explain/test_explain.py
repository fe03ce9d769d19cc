"""``explain``: every number against loops of its own, every place of the 1/m, parts of a batch, inputs and refusals."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support import loops

import backprop_gpu
from backprop_gpu import DenseNet, explain, textbook
from backprop_gpu.errors import BackpropError, ConfigError, ShapeError
from backprop_gpu.explain import Explanation
from backprop_gpu.explain.chain import places
from backprop_gpu.maths.activations import ACTIVATIONS
from backprop_gpu.maths.losses import LOSSES
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.report.explanation import print_explanation

PLACES = ["early", "late", "dA2", "dZ2", "dA1", "dZ1", "dW, db"]


def rows_of(explanation: Explanation, m: int) -> tuple[list[Any], list[Any]]:
    return explanation.X.T[:m].tolist(), explanation.Y.T[:m].tolist()


def near(got: np.ndarray, want: Any) -> None:
    np.testing.assert_allclose(got, np.array(want), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("m", [1, 3, 4, 8])
def test_every_number_of_the_default_network_is_that_of_loops(m: int, place: str) -> None:
    explanation = explain()
    assert (explanation.net.sizes, explanation.m) == ((2, 3, 1), 4)
    want = loops.tensors(explanation.net.parameters, *rows_of(explanation, m), place)
    batch = explanation.batch(m)
    found = batch.forward | batch.backward(place)
    assert set(found) == set(want)
    assert {step.name for step in explanation.steps} == set(want)
    for name, value in want.items():
        near(found[name], value)


def test_a_deeper_network_too() -> None:
    explanation = explain([3, 4, 2, 2], seed=3)
    for place in places(3):
        want = loops.tensors(explanation.net.parameters, *rows_of(explanation, 4), place)
        for name, value in (explanation.batch().forward | explanation.batch().backward(place)).items():
            near(value, want[name])


def test_the_losses_the_mean_of_the_gradients_and_the_complex_step() -> None:
    explanation = explain()
    X, Y = rows_of(explanation, 8)
    examples = [loops.of_example(explanation.net.parameters, x, y) for x, y in zip(X, Y, strict=True)]
    for i, gradient in enumerate(explanation.batch(8).of_examples):
        for name, value in examples[i].items():
            near(gradient[name], value)
            near(explanation.complex_step[name[1:]][:, :, i], value)
    for m in range(1, 9):
        mean = loops.weighted(examples[:m], [1.0 / m] * m)
        for name, value in explanation.batch(m).mean_of_examples().items():
            near(value, mean[name])
        assert explanation.check(m) < 1e-15


@pytest.mark.parametrize("parts", [(3, 1), (2, 2), (1, 1, 2), (4,), (1, 3)])
def test_parts_of_a_batch_count_as_they_are_said_to(parts: tuple[int, ...]) -> None:
    explanation, K = explain(), len(parts)
    X, Y = rows_of(explanation, 4)
    examples = [loops.of_example(explanation.net.parameters, x, y) for x, y in zip(X, Y, strict=True)]
    own = [1.0 / n for n in parts for _ in range(n)]
    weights = [[0.25] * 4, [0.25] * 4, [w / K for w in own], own]
    right = [True, True, len(set(parts)) == 1, K == 1]
    for way, want, ok in zip(explanation.batch().split(parts), weights, right, strict=True):
        np.testing.assert_allclose(way.weights, want, rtol=1e-15)
        for name, value in loops.weighted(examples, want).items():
            near(way.gradient[name], value)
        assert (way.error < 1e-13) == ok
        if way.right:
            assert ok


HIDDEN = [name for name, a in ACTIVATIONS.items() if not a.output_only]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", HIDDEN)
def test_every_activation_and_loss_is_right_at_every_place(activation: str, loss: str) -> None:
    explanation = explain([3, 4, 3], activation=activation, loss=loss, rows=5)
    assert explanation.check() < 1e-12
    for step in explanation.steps:
        assert step.formula.startswith(("dAL = ", "A0 = ", f"{step.name} = "))
        assert step.name == "A0" or re.fullmatch(r"maths/\w+\.py:\d+", step.source)
        assert step.name == "A0" or step.code.startswith("return ")


def test_the_line_of_source_is_the_one_that_stands_there() -> None:
    from pathlib import Path

    package = Path(backprop_gpu.__file__).parent
    for step in explain().steps[1:]:
        file, _, line = step.source.partition(":")
        assert (package / file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip() == step.code


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"input_scaling": True, "parametric_activation": [True, False]},
        {"periodic_embedding": {"columns": 2, "outputs": 2, "sigma": 1.0}, "input_scaling": True},
        {"members": 2, "adapters": "all", "parametric_activation": True},
    ],
    ids=str,
)
def test_a_network_has_the_gradient_that_its_training_has(parts: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    settings = {"loss": "categorical_cross_entropy", "activation": "tanh", "dtype": "float64", "device": "cpu"}
    net = DenseNet([3, 5, 4, 2], **settings, **parts)
    net.set_parameters({name: rng.uniform(-1.5, 1.5, x.shape) for name, x in net.parameters().items()})
    X, y = rng.normal(size=(6, 3)), rng.integers(0, 2, 6)
    explanation = explain(net, X, y, rows=6, feature_names="abc")
    assert explanation.check() < 1e-12
    assert len(explanation.feature_names) == len(explanation.X)
    step = TrainingStep(net, "sgd")
    step.gradient(X.T.copy(), np.eye(2)[y].T.copy(), None)
    found, k = net.params.named(net.params.grad), net.members
    last = ("W3", "b3")  # which no factor of a member's is in
    for name in explanation.net.names if k == 1 else last:
        got = explanation.batch().backward("late")[f"d{name}"]
        np.testing.assert_allclose(got, k * found[name][: len(got)], rtol=1e-12, atol=1e-15)


def test_the_course_s_parameters_give_the_course_s_numbers() -> None:
    parameters = textbook.initialize_parameters_deep([2, 3, 1], scale="1/sqrt_n")
    X, Y = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, -1.0]]), np.array([[0, 1, 1]])
    batch = explain(parameters, X.T, Y.T, rows=3).batch()
    AL, caches = textbook.L_model_forward(X, parameters)
    for convention in ("late", "early"):
        grads = textbook.L_model_backward(AL, Y, caches, convention=convention)
        for name in ("dW1", "db1", "dW2", "db2", "dA1"):
            np.testing.assert_array_equal(batch.backward(convention)[name], grads[name])
    assert batch.forward["J"][0, 0] == pytest.approx(float(textbook.compute_cost(AL, Y)), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain(DenseNet([2, 3, 1], batch_norm=True, device="cpu")), "batch_norm=False"),
        (lambda: explain([100, 100, 1]), "too many"),
        (lambda: explain([2] * 9), "too many"),
        (lambda: explain(None, [[1.0, 2.0]], [1]), "sizes such as"),
        (lambda: explain([2, 1], [[1.0, 2.0]]), "together"),
        (lambda: explain(rows=9), "from 1 to 8"),
        (lambda: explain(rows=True), "from 1 to 8"),
        (lambda: explain(split=[2, 3]), r"add up to m = 4, such as \[3, 1\]"),
        (lambda: explain(split=["3", "1"]), r"whole numbers that add up"),
        (lambda: explain(split=[5, -1]), r"whole numbers that add up"),
        (lambda: explain(feature_names=["a"]), "must name the 2 inputs"),
        (lambda: explain().batch(9), "from 1 to the 8"),
        (lambda: explain().batch().backward("dZ3"), "early, late or at one of dA2"),
        (lambda: explain({"W1": [[1.0]], "c1": [[1.0]]}), "W1, b1"),
        (lambda: explain([2, 3, 1], loss="nonsense"), "nonsense"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def test_rows_and_parameters_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(n_samples, 2\)"):
        explain([2, 3, 1], np.zeros((4, 3)), np.zeros(4))
    with pytest.raises(ShapeError, match="b1 must be"):
        explain({"W1": [[1.0, 2.0]], "b1": [1.0]})
    with pytest.raises(BackpropError):
        explain([2, 3, 1], np.full((4, 2), np.nan), np.zeros(4))


def test_what_is_left_out_is_said() -> None:
    assert "Dropout" in explain(DenseNet([2, 3, 1], dropout=0.5, device="cpu")).notes[0]


def test_the_terminal_shows_each_step_both_ways_within_80_columns() -> None:
    out = io.StringIO()
    print_explanation(explain(), Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 88  # the parameters' table keeps its columns
    for words in (
        "late / early = m = 4",
        "late / early = 1",
        "dW2 = (1/m) · dZ2 · A1ᵀ",
        "dL4",
        "WRONG by up to 73%",
        "13 parameters",
    ):
        assert words in text
    assert "[ 1.9185 -2.1434 -1.2276 -1.3867]" in text
    assert repr(explain()) == "<Explanation: [2, 3, 1], m = 4, J = 0.486497>"


def test_confident_predictions_are_right_and_saturated_ones_are_told_of() -> None:
    parameters = {"W1": [[20.0, -10.0]], "b1": [[0.0]]}
    X = [[1.0, 0.2], [-1.0, 0.1], [1.1, 0.3]]
    confident = explain(parameters, X, [1, 0, 1], rows=3)
    assert float(np.max(confident.batch().forward["L"])) < 1e-7
    assert confident.check() < 1e-14
    assert confident.notes == ()
    saturated = explain({"W1": [[200.0, -10.0]], "b1": [[0.0]]}, X, [0, 0, 1], rows=3)
    assert saturated.check() > 0.1
    assert saturated.notes[0].startswith("In example 1 AL is 0 or 1 to the last digit, on the wrong side")
