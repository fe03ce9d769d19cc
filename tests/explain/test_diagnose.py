"""``diagnose``: seeded mistakes, correct gradients, arrays of other libraries, refusals."""

from __future__ import annotations

import json
import os
from typing import Any

import array_api_strict
import numpy as np
import pytest
from support.mistakes import LOSSES, SEEDED, Case, G, Seeded, times, told

from backprop_gpu import DenseNet, diagnose
from backprop_gpu.cli import main
from backprop_gpu.errors import BackpropError
from backprop_gpu.network.step import TrainingStep

LONG = bool(os.environ.get("BACKPROP_GPU_LONG_TESTS"))
NETWORKS = [([4, 3], "relu", 18), ([5, 6, 3], "relu", 20), ([4, 5, 5, 3], "tanh", 14), ([3, 7, 4, 4, 3], "sigmoid", 22)]
# In the short form each mistake meets each loss, on one network of those that can have it.
CASES = [
    (i, loss, network) for i in range(len(SEEDED)) for loss in LOSSES for network in (NETWORKS if LONG else [None])
]


def case_of(seeded: Seeded, loss: str, network: Any, turn: int) -> Case | None:
    candidates = [network] if network else [NETWORKS[(turn + k) % len(NETWORKS)] for k in range(len(NETWORKS))]
    for sizes, activation, m in candidates:
        dtype = "float32" if (turn + len(sizes)) % 2 else "float64"
        case = Case(sizes, loss, activation, m, seed=turn, dtype=dtype, **seeded.case)
        if seeded.possible(case) and not ("keep_prob" in seeded.case and case.L < 2):
            return case
    return None


@pytest.mark.parametrize(("i", "loss", "network"), CASES)
def test_a_seeded_mistake_is_the_first_answer(i: int, loss: str, network: Any) -> None:
    seeded = SEEDED[i]
    case = case_of(seeded, loss, network, i + LOSSES.index(loss))
    if case is None:
        return  # this network or loss cannot have it
    grads = {name: x.astype(case.dtype) for name, x in seeded.make(case).items()}
    found = diagnose(case.parameters, grads, case.X, case.y, **told(seeded, case))
    assert not found.ok
    assert found.first is not None
    assert found.first.name.removesuffix(" missing" if seeded.name == "n_out" else "") == seeded.name
    assert found.first.words.endswith(".")
    assert found.first.tensors
    assert "{" not in found.summary()


def random_case(rng: np.random.Generator, i: int) -> Case:
    sizes = [int(n) for n in rng.integers(1, 12, rng.integers(1, 5))]
    return Case(
        [*sizes, int(rng.integers(2, 6))],
        LOSSES[i % 3],
        list(G)[int(rng.integers(3))],
        int(rng.integers(1, 40)),
        seed=i,
        weighted=bool(rng.integers(2)),
        l2=float(rng.choice([0.0, 0.5])),
        keep_prob=float(rng.choice([1.0, 0.7])),
        dtype=("float64", "float32")[int(rng.integers(2))],
        scale=float(rng.choice([0.1, 1.0, 5.0, 30.0])),
    )


def test_no_correct_gradient_is_accused() -> None:
    rng = np.random.default_rng(0)
    for i in range(1000 if LONG else 60):
        case = random_case(rng, i)
        found = diagnose(case.parameters, case.gradient(), case.X, case.y, **case.options())
        assert found.ok, (case, found)
        assert found.mistakes == ()
        assert all(t.ok and t.ratio == 1.0 for t in found.tensors)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_predictions_are_saturated_the_right_gradient_is_right_and_the_literal_one_is_not(dtype: str) -> None:
    case = Case([3, 4, 1], "binary_cross_entropy", "relu", 8, dtype=dtype, scale=40.0)
    right, literal = case.gradient(), case.gradient(output="literal")
    assert diagnose(case.parameters, right, case.X, case.y, **case.options()).ok
    found = diagnose(case.parameters, literal, case.X, case.y, **case.options())
    assert found.first is not None
    assert found.first.name == "saturated"
    found = diagnose(case.parameters, times(right, 8.0), case.X, case.y, **case.options())
    assert found.first is not None
    assert found.first.name == "1/m missing"


def test_a_larger_network_is_not_accused() -> None:
    case = Case([80, 60, 40, 10], "categorical_cross_entropy", "relu", 64, dtype="float32")
    assert diagnose(case.parameters, case.gradient(), case.X, case.y, **case.options()).ok
    found = diagnose(case.parameters, times(case.gradient(), 64.0), case.X, case.y, **case.options())
    assert found.first is not None
    assert found.first.name == "1/m missing"


def test_a_small_error_is_no_rounding() -> None:
    case = Case([4, 5, 2], "squared_error", "tanh", 10)
    grads = case.gradient()
    grads["dW1"] = grads["dW1"] * (1.0 + 1e-9)
    found = diagnose(case.parameters, grads, case.X, case.y, **case.options())
    assert [t.name for t in found.tensors if not t.ok] == ["dW1"]
    assert found.first is not None
    assert found.first.name == "a factor"


def test_a_bias_without_its_second_axis_is_not_right() -> None:
    """The course's b (n, 1) minus db (n,) is (n, n); where b itself has one axis, or one number, nothing goes wrong."""
    case = Case([4, 5, 1], "binary_cross_entropy", "relu", 7)
    flat = {name: x.ravel() if name[1] == "b" else x for name, x in case.gradient().items()}
    columns = {name: x.reshape(-1, 1) if name[0] == "b" else x for name, x in case.parameters.items()}
    found = diagnose(columns, flat, case.X, case.y, **case.options())
    assert [(m.name, m.tensors) for m in found.mistakes] == [("axis lost", ("db1",))]
    assert "b1 - α · db1 is then (5, 5)" in found.summary()
    assert "keepdims=True" in found.summary()
    assert [t.name for t in found.tensors if not t.ok] == ["db1"]
    rows = {name: x.ravel() if name[0] == "b" else x for name, x in columns.items()}
    assert diagnose(rows, flat, case.X, case.y, **case.options()).ok
    with pytest.raises(BackpropError, match=r"db1 has shape \(1, 7\).*: np.sum\(dZ1, axis=1, keepdims=True\)"):
        diagnose(columns, flat | {"db1": np.zeros((1, 7))}, case.X, case.y, **case.options())


def test_two_mistakes_and_an_unknown_one() -> None:
    case = Case([4, 5, 2], "squared_error", "tanh", 10)
    options = case.options()
    found = diagnose(case.parameters, times(case.gradient(slope="missing"), -1.0), case.X, case.y, **options)
    assert [mistake.name for mistake in found.mistakes] == ["g' missing", "sign"]
    grads = case.gradient()
    noise = np.random.default_rng(1).normal(size=grads["dW1"].shape)
    found = diagnose(case.parameters, grads | {"dW1": grads["dW1"] + noise}, case.X, case.y, **options)
    assert found.first is not None
    assert (found.first.name, found.first.tensors) == ("unknown", ("dW1",))
    assert "All of layer 2 is right." in found.first.words
    lost = case.gradient(rows=slice(0, 9), D=10.0)
    found = diagnose(case.parameters, lost, case.X, case.y, **options)
    assert found.first is not None
    assert found.first.words == "Example 9 is missing from the sum."
    found = diagnose(case.parameters, grads | {"db2": grads["db2"] * np.nan}, case.X, case.y, **options)
    assert found.first is not None
    assert found.first.name == "not finite"


def test_the_number_is_said_with_its_other_readings() -> None:
    case = Case([4, 3, 3], "squared_error", "relu", 3)
    found = diagnose(case.parameters, case.gradient(D=1.0), case.X, case.y, **case.options())
    assert found.first is not None
    assert (found.first.name, found.first.ratio) == ("1/m missing", 3.0)
    assert found.first.also == ("Summed over the 3 outputs, where the cost averages over them.",)
    assert [t.ratio for t in found.tensors] == pytest.approx([3.0] * 4)
    assert json.loads(json.dumps(found.to_dict()))["mistakes"][0]["name"] == "1/m missing"
    assert "the same with these numbers: Summed over" in found.summary()
    assert "1/m is nowhere" in found._repr_html_()


class Torchlike:
    """What a tensor with a gradient on another device looks like."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.dtype = x, f"torch.{x.dtype}"

    def detach(self) -> Torchlike:
        return Torchlike(self.x)

    def __array__(self, *unused: Any, **ignored: Any) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def cpu(self) -> np.ndarray:
        return self.x


@pytest.mark.parametrize(
    "library", ["lists", "strict", "torchlike", "names without d", "a list", "flat biases", "network"]
)
def test_gradients_of_any_library_and_order(library: str) -> None:
    case = Case([4, 5, 2], "squared_error", "tanh", 10, dtype="float32")
    grads: Any = case.gradient(D=1.0)
    parameters: Any = case.parameters
    if library == "lists":
        grads = {name: x.tolist() for name, x in grads.items()}
    elif library == "strict":
        grads = {name: array_api_strict.asarray(x) for name, x in grads.items()}
    elif library == "torchlike":
        grads, parameters = ({name: Torchlike(x) for name, x in each.items()} for each in (grads, parameters))
    elif library == "names without d":
        grads = {name[1:]: x for name, x in grads.items()} | {"A1": 0}
    elif library == "a list":
        grads = [grads[name] for name in ("dW1", "db1", "dW2", "db2")]
    elif library == "flat biases":
        grads, parameters = ({n: x.ravel() if "b" in n else x for n, x in each.items()} for each in (grads, parameters))
    else:
        net = DenseNet([4, 5, 2], loss="squared_error", activation="tanh", device="cpu")
        net.set_parameters(parameters)
        parameters = net
    options = case.options() if library != "lists" else case.options() | {"dtype": "float32"}
    found = diagnose(parameters, grads, case.X, case.y, **options)
    assert found.first is not None
    assert (found.first.name, found.first.ratio) == ("1/m missing", 10.0)


def test_the_gradient_of_a_training_step_is_right() -> None:
    case = Case([4, 6, 3], "categorical_cross_entropy", "relu", 20)
    for dtype in ("float32", "float64"):
        net = DenseNet(case.sizes, loss=case.loss, dtype=dtype, device="cpu")
        net.set_parameters(case.parameters)
        columns = [np.ascontiguousarray(x.T, dtype=dtype) for x in (case.X, case.y)]
        TrainingStep(net, "sgd").gradient(*columns, None)
        named = net.params.named(net.params.grad)
        assert diagnose(net, named, case.X, case.y).ok
        assert not diagnose(net, {name: 20 * x for name, x in named.items()}, case.X, case.y).ok


GOOD = Case([4, 5, 2], "squared_error", "tanh", 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grads": {"dW1": np.zeros((5, 4))}}, "grads has no db1, dW2, db2"),
        ({"grads": GOOD.gradient() | {"dW1": np.zeros((3, 3))}}, r"dW1 has shape \(3, 3\), but it must be \(5, 4\)"),
        ({"X": GOOD.X.T}, r"X must be \(n_samples, 4\)"),
        ({"X": [["a"] * 4] * 10}, "must hold real numbers"),
        ({"l2": -1.0}, "l2 must be at least 0"),
        ({"ranks": 0}, "ranks must be a whole number"),
        ({"micro_batches": 11}, "from 1 to the 10"),
        ({"micro_batches": [3, 3]}, "add up to the 10"),
        ({"keep_prob": 0.0}, "keep_prob"),
        ({"masks": {2: np.ones((10, 5))}}, r"masks of hidden layers must be 1: \(10, 5\)"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"loss": "nonsense"}, "unknown loss"),
        ({"parameters": {"W1": np.zeros((2, 2))}}, "parameters must be W1, b1"),
    ],
)
def test_what_cannot_be_diagnosed_is_said_in_one_line(change: dict[str, Any], message: str) -> None:
    given = (
        {"parameters": GOOD.parameters, "grads": GOOD.gradient(), "X": GOOD.X, "y": GOOD.y} | GOOD.options() | change
    )
    with pytest.raises(BackpropError, match=message) as caught:
        diagnose(**given)
    assert len(str(caught.value).splitlines()) == 1


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_command_reads_a_file_and_its_exit_code_says_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    case = Case([4, 5, 2], "squared_error", "tanh", 10, weighted=True, keep_prob=0.8)
    rest = case.parameters | {"sample_weight": case.w, "mask1": case.masks[1]}
    np.savez("right.npz", X=case.X, y=case.y, **rest, **case.gradient())
    np.savez("wrong.npz", X=case.X, y=case.y, **rest, **case.gradient(mask="unscaled"))
    course = Case([4, 5, 2], "squared_error", "tanh", 10)
    np.savez("course.npz", X=course.X.T, Y=course.y.T, **course.parameters, **course.gradient())
    options = ["--loss", "squared_error", "--activation", "tanh"]
    assert main(["diagnose", "right.npz", *options, "--keep-prob", "0.8"]) == 0
    assert capsys.readouterr().out.endswith("The gradient is right.\n")
    assert main(["diagnose", "wrong.npz", *options, "--keep-prob", "0.8"]) == 1
    out = capsys.readouterr().out
    assert "dW1, db1: The backward pass does not divide by keep_prob = 0.8" in out
    assert "WRONG" in out
    assert main(["diagnose", "wrong.npz", *options, "--keep-prob", "0.8", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["mistakes"][0]["name"] == "dropout scale"
    assert main(["diagnose", "course.npz", *options, "--columns", "--micro-batches", "3,7"]) == 0
    capsys.readouterr()
    for words, message in (
        (["course.npz", *options], "add --columns"),
        (["nowhere.npz"], "nowhere.npz"),
        (["right.npz", *options, "--micro-batches", "x"], "--micro-batches takes sizes"),
    ):
        assert main(["diagnose", *words]) == 2
        assert message in capsys.readouterr().err
    np.savez("empty.npz", X=case.X)
    assert main(["diagnose", "empty.npz"]) == 2
    assert "has no y, W1, b1, dW1, db1" in capsys.readouterr().err
