"""Networks from specifications that nobody checked: each is refused in one line, or computes what the reference does.

The specifications are random, from values that are right, nearly right and absurd; some come from model files
with a valid digest, as somebody might write them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_gpu.backends.cpu.library import unavailable_reason
from backprop_gpu.errors import BackpropError, CheckpointError
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.model_file import FORMAT, load_model
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.tensor_file import write_tensors

SPECS, FILES = 1_000, 500
KINDS = ["reference"] if unavailable_reason() else ["reference", "native"]
NAN, INF = math.nan, math.inf

SIZES: list[Any] = [[4, 5, 6], [4, 6], [4, 3, 5, 6], [4, 5, 1], [4, 5, 2], [4, 7, 3], [4, 5, 12]]
BAD_SIZES: list[Any] = [[4], [], [4, 0, 6], [4, -5, 6], [4, 5.0, 6], [4, True, 6], "46", 7, [4, None], [2**21, 2**21]]
GROUPS: list[Any] = [[3, 3], [1, 5], [6], [1, 2, 3], [3, 9], [2, 2], [7], [1], [12], [2, 10**30], [6, 0], [3, 2.5]]
GROUPS += [[9, -3], [NAN, 3], [INF], [], "33", None, [True, 5], [[3], 3], [3.0, 3.0], 6]
QUANTILES: list[Any] = [[0.5], [0.1, 0.9], [0.1, 0.5, 0.9], [0.2, 0.4, 0.6, 0.8], [0.9, 0.1], [0.0], [1.0], [NAN]]
QUANTILES += [[0.5, 0.5], [], "0.5", None, [-1.0], [INF], [i / 100 for i in range(1, 99)]]
LOSSES: list[Any] = [
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "squared_error",
    "poisson",
    "huber",
    "absolute",
]
LOSSES += ["absolute_error", "", None, 3, [], {}, {"name": None}, {"name": "huber", "threshold": 0.0}]
LOSSES += [{"name": "huber", "threshold": t} for t in (0.5, NAN, INF, "1", None, [1], True, 10**400)]
LOSSES += [{"name": name, "label_smoothing": s} for name in LOSSES[:2] for s in (0.1, 1.0, -0.1, NAN, "a", None, [])]
ACTIVATIONS: list[Any] = ["relu", "tanh", "gelu", "silu", "elu", "softmax", "nothing", None, 1, {}, {"name": "elu"}]
ACTIVATIONS += [{"name": "leaky_relu", "slope": s} for s in (0.1, NAN, INF, "x", None, [])] + [
    ["relu"],
    ["relu"] * 2,
    [],
]
RATES: list[Any] = [0.0, 0.3, [0.1], [0.1, 0.2], [], 1.0, -0.1, NAN, INF, "0.1", None, True, [None], [[0.1]]]
NORMS: list[Any] = [False, True, [True], [True, False], [], 1, "yes", None, [0]]
DTYPES: list[Any] = ["float32", "float64", "float16", "int64", "complex128", "", None, 32, ["float32"]]
SEEDS: list[Any] = [0, 7, 2**64 - 1, 2**64, -1, 1.0, True, None, "7"]
INITIALIZERS: list[Any] = ["auto", "zeros", "he", "", None, 5, [], {}]


def drawn(rng: np.random.Generator, choices: list[Any], right: int = 0) -> Any:
    """One of the choices, more often one of the first ``right``."""
    n = right if right and rng.random() < 0.8 else len(choices)
    return choices[int(rng.integers(n))]


def spec_of(rng: np.random.Generator) -> dict[str, Any]:
    """A random specification; about half of them are right."""
    losses = [
        {"name": "grouped_cross_entropy", "groups": drawn(rng, GROUPS, 12), "label_smoothing": drawn(rng, [0.0, 0.1])},
        {"name": "quantile", "quantiles": drawn(rng, QUANTILES, 4)},
        drawn(rng, LOSSES, 5),
    ]
    spec = {
        "sizes": drawn(rng, SIZES + BAD_SIZES, len(SIZES)),
        "loss": drawn(rng, losses),
        "activation": drawn(rng, ACTIVATIONS, 4),
        "dropout": drawn(rng, RATES, 2),
        "batch_norm": drawn(rng, NORMS, 2),
        "dtype": drawn(rng, DTYPES, 2),
        "seed": drawn(rng, SEEDS, 3),
        "initializer": drawn(rng, INITIALIZERS, 2),
    }
    if rng.random() < 0.05:
        spec[drawn(rng, ["beside", "device", "kernels", "size", ""])] = drawn(rng, ["cpu", None, {}, 3])
    return spec


def rows_for(net: DenseNet, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A few rows with targets that any loss takes: one-hot where there are classes."""
    X, n = rng.standard_normal((13, net.sizes[0])), net.sizes[-1]
    return X, np.eye(n)[rng.integers(0, n, 13)]


def outcome(net: DenseNet, X: np.ndarray, Y: np.ndarray) -> list[np.ndarray]:
    """Predictions, the cost, and the parameters after a step."""
    found = [net.predict_proba(X), np.array(net.cost(X, Y))]
    step = TrainingStep(net, "adam")
    step(net.upload_columns(X), net.upload_columns(Y))
    return [*found, net.backend.to_host(net.params.grad)]


def attempted(make: Callable[[], DenseNet]) -> tuple[DenseNet | None, BackpropError]:
    """A network, or what was said against it."""
    try:
        return make(), BackpropError()
    except BackpropError as error:
        return None, error


def test_networks_of_random_specifications_are_refused_or_right() -> None:
    rng, right = np.random.default_rng(0), 0
    for number in range(SPECS):
        spec = spec_of(rng)
        where = f"{number}: {spec}"
        fields = {key: value for key, value in spec.items() if key not in ("beside", "device", "kernels", "size", "")}
        reference, why = attempted(lambda: DenseNet(**fields, device="cpu", kernels="reference"))  # noqa: B023
        if reference is None:
            assert "\n" not in str(why), where
            for kind in KINDS:
                with pytest.raises(type(why)):
                    DenseNet(**fields, device="cpu", kernels=kind)
            continue
        X, Y = rows_for(reference, rng)
        if fields["dtype"] == "complex128":  # of the formulas alone
            continue
        wanted, right = outcome(reference, X, Y), right + 1
        tolerance = {"rtol": 2e-4, "atol": 1e-5} if reference.dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
        for kind in KINDS:
            got = outcome(DenseNet(**fields, device="cpu", kernels=kind), X, Y)
            for ours, theirs in zip(got, wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, **tolerance, err_msg=f"{kind} {where}")
    assert right > SPECS / 10


def test_files_of_random_specifications_are_refused_or_right(tmp_path: Path) -> None:
    rng, right, path = np.random.default_rng(1), 0, tmp_path / "model.safetensors"
    for number in range(FILES):
        spec = spec_of(rng)
        where = f"{number}: {spec}"
        # The tensors are of a network with these sizes, whatever else the file says.
        sizes = spec["sizes"] if any(spec["sizes"] is known for known in SIZES) else SIZES[0]
        own = DenseNet(sizes, loss="squared_error", batch_norm=bool(spec["batch_norm"]), device="cpu").parameters()
        if not isinstance(spec["activation"], list) and rng.random() < 0.9:  # as they are written
            spec["activation"] = [spec["activation"]] * (len(sizes) - 2)
        network: Any = spec if rng.random() < 0.95 else drawn(rng, [None, [], "net", {"sizes": sizes}])
        write_tensors(path, own, json.dumps({"network": network, "extras": {}}), FORMAT)
        net, why = attempted(lambda: load_model(DenseNet, path, "cpu", KINDS[-1])[0])
        if net is None:
            assert isinstance(why, CheckpointError) or spec["sizes"] == [2**21, 2**21], where
            assert "\n" not in str(why), where
            continue
        X, Y = rows_for(net, rng)
        got, right = outcome(net, X, Y), right + 1
        reference, _ = load_model(DenseNet, path, "cpu", "reference")
        for ours, theirs in zip(got, outcome(reference, X, Y), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5, err_msg=where)
    assert right > FILES / 10
