"""Predict with a trained network, by NumPy alone. Written by backprop_gpu; it does not need that package.

From a shell: ``python THIS_FILE rows.csv > predictions.csv`` (UTF-8, a header, commas). From Python::

    predict({"area": [54.0, 71.0], "town": ["Bern", "Basel"]})     # a column a name; None or NaN: missing
    predict_proba(...)                                             # of classes
    predict(X)                                                     # or an array, where the model was trained on one
"""

import base64
import csv
import json
import math
import sys
from typing import Any

import numpy as np

MODEL: Any = json.loads("{}")  # backprop_gpu puts the model here


def _array(saved: Any) -> Any:
    """An array that is saved as base64."""
    return np.frombuffer(base64.b64decode(saved["data"]), "<f4").reshape(saved["shape"])


def _column(columns: Any, name: str) -> Any:
    if name not in columns:
        raise ValueError(f"the column {name!r} is missing; the model has {', '.join(MODEL['inputs']['columns'])}")
    return columns[name]


def _number(cell: Any, form: Any) -> float:
    """A cell as a number, as the training file wrote them: NaN if missing, 1 for yes."""
    if cell is None or cell == "":
        return math.nan
    if not isinstance(cell, str) or form is None:
        return float(cell)
    if form["kind"] == "boolean":
        word = cell.strip().lower()
        if word not in (*MODEL["true"], *MODEL["false"]):
            raise ValueError(f"{cell!r} is neither yes nor no")
        return float(word in MODEL["true"])
    for mark in (form["unit"], form["thousands"], " "):
        cell = cell.replace(mark, "") if mark else cell
    return float(cell.replace(form["decimal"], "."))


def transform(columns: Any) -> Any:
    """Inputs (n_rows, n_inputs), float32, of a mapping of columns: filled, standardized, gaps marked, one-hot."""
    how = MODEL["inputs"]
    if how is None:
        return np.asarray(columns, np.float32)
    numbers: list[Any] = []
    gaps: list[Any] = []
    one_hot: list[Any] = []
    for j, name in enumerate(how["numeric"]):
        values = np.array([_number(cell, how["forms"].get(name)) for cell in _column(columns, name)], np.float64)
        missing = np.isnan(values)
        if name in how["indicators"]:
            gaps.append(missing.astype(np.float32))
        if how["fill"] is not None:
            values = np.where(missing, how["fill"][j], values)
        elif missing.any():
            raise ValueError(f"column {name!r}: a value is missing, and the model was trained without gaps")
        numbers.append(((values - how["mean"][j]) / how["scale"][j]).astype(np.float32))
    for name, known in how["categories"]:
        place = {category: k for k, category in enumerate(known)}
        at = ["" if cell is None or cell != cell else str(cell) for cell in _column(columns, name)]
        block = np.zeros((len(at), len(known)), np.float32)
        for i, cell in enumerate(at):
            if cell in place:
                block[i, place[cell]] = 1.0
            elif how["unknown"] == "missing" and "" in place:
                block[i, place[""]] = 1.0
            elif how["unknown"] == "error":
                raise ValueError(f"column {name!r}: {cell!r} is not among the training categories")
        one_hot.extend(block.T)
    return np.stack([*numbers, *gaps, *one_hot], axis=1)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _activation(name: str, z: Any, slope: float = 0.01, alpha: float = 1.0) -> Any:
    """g(z) of a layer."""
    if name == "identity":
        return z
    if name == "relu":
        return np.maximum(z, 0.0)
    if name == "tanh":
        return np.tanh(z)
    if name == "leaky_relu":
        return np.where(z > 0.0, z, slope * z)
    if name == "elu":
        return np.where(z > 0.0, z, alpha * np.expm1(np.minimum(z, 0.0)))
    if name == "selu":
        return np.where(z > 0.0, 1.0507009873554805 * z, 1.7580993408473766 * np.expm1(np.minimum(z, 0.0)))
    if name in ("softplus", "mish"):
        softplus = np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))
        return softplus if name == "softplus" else z * np.tanh(softplus)
    if name == "exponential":
        return np.exp(z)
    if name == "gelu":
        return z * (0.5 * (1.0 + _erf(z * math.sqrt(0.5)).astype(z.dtype)))
    if name == "gelu_tanh":
        return 0.5 * z * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * (z * z * z))))
    if name == "softmax":
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
    e = np.exp(-np.abs(z))
    sigmoid = np.where(z > 0.0, 1.0, e) / (1.0 + e)
    return {"sigmoid": sigmoid, "silu": z * sigmoid}[name]


def outputs(rows: Any) -> Any:
    """What the network gives, (n_rows, n_outputs)."""
    x, waves, members = transform(rows), MODEL["waves"], MODEL["members"]
    if waves is not None:
        cosines = np.cos(x[:, waves["columns"]] * _array(waves["w"]) + _array(waves["b"]))
        x = np.concatenate([x, cosines @ _array(waves["V"]).T + _array(waves["c"])], axis=1)
    return sum(_network(layers, x) for layers in members) / np.float32(len(members))


def _network(layers: Any, x: Any) -> Any:
    """What a member gives."""
    for layer in layers:
        z = x @ _array(layer["W"]).T + _array(layer["b"])
        x = _activation(layer["activation"], z, **layer["parameters"])
        if layer["alpha"] is not None:
            x = z + _array(layer["alpha"]) * (x - z)
    return x


def predict_proba(rows: Any) -> Any:
    """Probabilities (n_rows, n_classes), in the order of ``MODEL["labels"]``; of several labels (n_rows, n_labels)."""
    if MODEL["task"] in ("regression", "count"):
        raise ValueError("this model predicts values; call predict")
    p = outputs(rows)
    return np.concatenate([1.0 - p, p], axis=1) if MODEL["task"] == "binary" else p


def predict(rows: Any) -> Any:
    """Labels (n_rows,), 0/1 (n_rows, n_labels) of several labels, or values, (n_rows,) of a single target."""
    task = MODEL["task"]
    if task in ("regression", "count"):
        values = outputs(rows).astype(np.float64)
        if MODEL["scale"] is not None:
            each = values.shape[1] // len(MODEL["scale"])
            values = values * np.repeat(MODEL["scale"], each) + np.repeat(MODEL["mean"], each)
        return values[:, 0] if values.shape[1] == 1 else values
    p = predict_proba(rows)
    if task == "multilabel":
        return (p.astype(np.float64) > MODEL["threshold"]).astype(np.int64)
    if task == "binary":
        return np.array(MODEL["labels"])[(p[:, 1].astype(np.float64) > MODEL["threshold"]).astype(int)]
    return np.array(MODEL["labels"])[np.argmax(p, axis=1)]


def main(path: str) -> None:
    """Predict the rows of a CSV file, to standard output."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name].strip() for row in rows] for name in (rows[0] if rows else ())}
    found = predict(columns)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(MODEL["target"])
    writer.writerows(found.reshape(len(found), -1).tolist())


if __name__ == "__main__":
    main(sys.argv[1])
