"""Backpropagation once more, in loops over floats of Python alone: ReLU, a sigmoid at the end, binary cross-entropy.

It shares nothing with the package, and every sum is written out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Rows = list[list[float]]


def forward(parameters: Mapping[str, Any], x: Sequence[float], y: Sequence[float]) -> dict[str, list[float]]:
    """``A0, Z1, A1, ..., AL`` of one example, each a list, and its loss ``L``, a list of one number."""
    found, A, depth = {"A0": [float(v) for v in x]}, [float(v) for v in x], len(parameters) // 2
    for l in range(1, depth + 1):
        W, b = parameters[f"W{l}"], parameters[f"b{l}"]
        Z = [float(b[j][0]) + sum(float(W[j][k]) * A[k] for k in range(len(A))) for j in range(len(W))]
        A = [max(z, 0.0) for z in Z] if l < depth else [1.0 / (1.0 + math.exp(-z)) for z in Z]
        found |= {f"Z{l}": Z, f"A{l}": A}
    found["L"] = [-sum(t * math.log(a) + (1.0 - t) * math.log(1.0 - a) for t, a in zip(y, A, strict=True))]
    return found


def backward(
    parameters: Mapping[str, Any], found: Mapping[str, list[float]], y: Sequence[float]
) -> dict[str, list[float]]:
    """``dAL, dZL, ..., dA1, dZ1`` of one example's own loss: derivatives of L, with no 1/m."""
    depth = len(parameters) // 2
    dA = [-(t / a - (1.0 - t) / (1.0 - a)) for t, a in zip(y, found[f"A{depth}"], strict=True)]
    grads = {}
    for l in range(depth, 0, -1):
        A, Z, W = found[f"A{l}"], found[f"Z{l}"], parameters[f"W{l}"]
        slope = [a * (1.0 - a) for a in A] if l == depth else [1.0 if z > 0.0 else 0.0 for z in Z]
        dZ = [d * s for d, s in zip(dA, slope, strict=True)]
        grads |= {f"dA{l}": dA, f"dZ{l}": dZ}
        dA = [sum(float(W[j][k]) * dZ[j] for j in range(len(dZ))) for k in range(len(W[0]))]
    return grads


def of_example(parameters: Mapping[str, Any], x: Sequence[float], y: Sequence[float]) -> dict[str, Rows]:
    """``dW1, db1, ...`` of one example's own loss."""
    found = forward(parameters, x, y)
    grads, result = backward(parameters, found, y), {}
    for l in range(1, len(parameters) // 2 + 1):
        result[f"dW{l}"] = [[d * a for a in found[f"A{l - 1}"]] for d in grads[f"dZ{l}"]]
        result[f"db{l}"] = [[d] for d in grads[f"dZ{l}"]]
    return result


def weighted(gradients: Sequence[Mapping[str, Rows]], weights: Sequence[float]) -> dict[str, Rows]:
    """sum_i weights[i] gradients[i]."""
    return {
        name: [
            [sum(w * g[name][j][k] for w, g in zip(weights, gradients, strict=True)) for k in range(len(row))]
            for j, row in enumerate(rows)
        ]
        for name, rows in gradients[0].items()
    }


def columns(lists: Sequence[Sequence[float]]) -> Rows:
    """One list per example as the columns of a matrix."""
    return [list(row) for row in zip(*lists, strict=True)]


def tensors(parameters: Mapping[str, Any], X: Any, Y: Any, place: str) -> dict[str, Rows]:
    """Every tensor of the chain for a batch X (m rows), Y (m rows), the 1/m multiplied in at ``place``."""
    m, depth = len(X), len(parameters) // 2
    order = [f"d{kind}{l}" for l in range(depth, 0, -1) for kind in "AZ"]
    start = {"early": 0, "late": len(order), "dW, db": len(order)}.get(
        place, order.index(place) if place in order else -1
    )
    assert start >= 0
    runs = [forward(parameters, x, y) for x, y in zip(X, Y, strict=True)]
    backs = [backward(parameters, run, y) for run, y in zip(runs, Y, strict=True)]
    result = {name: columns([run[name] for run in runs]) for name in runs[0]}
    result["J"] = [[sum(run["L"][0] for run in runs) / m]]
    for at, name in enumerate(order):
        factor = 1.0 / m if at >= start else 1.0
        result[name] = [[factor * v for v in row] for row in columns([back[name] for back in backs])]
    examples = [of_example(parameters, x, y) for x, y in zip(X, Y, strict=True)]
    return result | weighted(examples, [1.0 / m] * m)
