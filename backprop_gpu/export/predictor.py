"""Predict with a trained network, by NumPy alone. Written by backprop_gpu; it does not need that package.

From a shell: ``python THIS_FILE rows.csv > predictions.csv`` (UTF-8, a header, commas). From Python::

    predict({"area": [54.0, 71.0], "town": ["Bern", "Basel"]})     # a column a name; None or NaN: missing
    predict_proba(...)                                             # of classes
    predict(X)                                                     # or an array, where the model was trained on one
"""

from __future__ import annotations

import base64
import csv
import json
import math
import sys
from typing import Any

import numpy as np

from ..data.date_text import days_of_text, expand

MODEL: Any = json.loads("{}")  # backprop_gpu puts the model here


def _array(saved: Any) -> Any:
    """An array that is saved as base64."""
    return np.frombuffer(base64.b64decode(saved["data"]), "<f4").reshape(saved["shape"])


def _columns(rows: Any) -> dict[str, Any]:
    """The columns by name, of a mapping or, in the model's order, of an array (n_rows, n_columns)."""
    names = [column["name"] for column in MODEL["inputs"]["columns"]]
    if not hasattr(rows, "keys"):
        rows = dict(zip(names, np.asarray(rows).T, strict=True))
    for name in names:
        if name not in rows:
            raise ValueError(f"the column {name!r} is missing; the model has {', '.join(names)}")
    return {name: rows[name] for name in names}


def _missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in MODEL["words"]["missing"]
    return cell is None or cell != cell or str(cell) in ("NaT", "<NA>")


def _number(cell: Any, column: Any) -> float:
    """A cell as a number, as the training file wrote them: NaN if missing, 1 for yes, days since 1970 for a date."""
    form = column["form"]
    if _missing(cell):
        return math.nan
    if column["kind"] in ("date", "datetime", "time") and not isinstance(cell, int | float | np.number):
        order = form["order"]
        if isinstance(cell, str):
            return days_of_text(cell.strip(), order, form["parts"], form["zoned"])
        return days_of_text(str(cell), "time" if order == "time" else "ymd", "datetime")  # a date of Python or NumPy
    if not isinstance(cell, str) or form is None:
        return float(cell)
    if form["kind"] == "boolean":
        word = cell.strip().lower()
        if word not in (*MODEL["words"]["true"], *MODEL["words"]["false"]):
            raise ValueError(f"{cell!r} is neither yes nor no")
        return float(word in MODEL["words"]["true"])
    for mark in (form["unit"], form["thousands"], " "):
        cell = cell.replace(mark, "") if mark else cell
    return float(cell.replace(form["decimal"], "."))


def _numbers(cells: Any, column: Any) -> Any:
    """The numbers of a column, float64."""
    if getattr(cells, "dtype", np.dtype(object)).kind in "biuf":
        return np.asarray(cells, np.float64)
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            values[i] = _number(cell, column)
        except (TypeError, ValueError):
            raise ValueError(f"row {i}, column {column['name']!r}: {cell!r} is no {column['kind']}") from None
    return values


def _one_hot(cells: Any, column: Any) -> Any:
    known, unknown = column["categories"], MODEL["inputs"]["unknown"]
    place = {category: k for k, category in enumerate(known)}
    block = np.zeros((len(cells), len(known)), np.float32)
    for i, cell in enumerate(cells):
        whole = isinstance(cell, float | np.floating) and cell == cell and float(cell).is_integer()
        text = "" if _missing(cell) else str(int(cell)) if whole else str(cell)
        if text in place:
            block[i, place[text]] = 1.0
        elif unknown == "missing" and "" in place:
            block[i, place[""]] = 1.0
        elif unknown == "error":
            raise ValueError(f"column {column['name']!r}: {text!r} is not among the training categories")
    return block


def transform(rows: Any) -> Any:
    """Inputs (n_rows, n_inputs), float32: numbers filled and scaled, gaps marked, bins, categories one-hot."""
    how = MODEL["inputs"]
    if how is None:
        return np.asarray(rows, np.float32)
    columns = _columns(rows)
    values, parts = {}, {}
    for column in how["columns"]:
        name = column["name"]
        if column["kind"] != "category":
            values[name] = _numbers(columns[name], column)
        if column["kind"] in ("date", "datetime", "time"):
            parts[name] = expand(values[name], column["kind"])
    found = [_one_hot(columns[c["name"]], c) for c in how["columns"] if c["kind"] == "category"]
    if how["numbers"]:
        numbers = [values[name] if part < 0 else parts[name][:, part] for name, part in how["numbers"]]
        found = [*_scaled(np.stack(numbers, axis=1)), *found]
    return np.concatenate(found, axis=1, dtype=np.float32)


def _scaled(numbers: Any) -> list[Any]:
    """Numbers (n_rows, n_numbers) as inputs: scaled, their gaps, and their bins (piecewise-linear encoding)."""
    how, missing = MODEL["inputs"], np.isnan(numbers)
    if how["fill"] is None and missing.any():
        name, _ = how["numbers"][np.argmax(missing.any(axis=0))]
        raise ValueError(f"column {name!r}: a value is missing, and the model was trained without gaps")
    filled = numbers if how["fill"] is None else np.where(missing, how["fill"], numbers)
    z = (filled - how["centre"]) / how["spread"]
    if how["clip"] is not None:
        z = z / np.hypot(1.0, z / how["clip"])
    found = [z, missing[:, how["marked"]]]
    for j, edges in enumerate(how["edges"]):
        if edges:
            part = (numbers[:, j, None] - edges[:-1]) / np.diff(edges)
            found.append(np.where(missing[:, j, None], 0.0, np.clip(part, 0.0, 1.0)))
    return found


_erf = np.vectorize(math.erf, otypes=[np.float64])


def activation(name: str, z: Any, slope: float = 0.01, alpha: float = 1.0) -> Any:
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
    """What the model gives, (n_rows, n_outputs): the mean of its networks."""
    x, networks = transform(rows), MODEL["networks"]
    return sum(_network(network, x) for network in networks) / np.float32(len(networks))


def _network(network: Any, x: Any) -> Any:
    """What a network gives: the mean of its members."""
    waves, members = network["waves"], network["members"]
    if waves is not None:
        cosines = np.cos(x[:, waves["columns"]] * _array(waves["w"]) + _array(waves["b"]))
        x = np.concatenate([x, cosines @ _array(waves["V"]).T + _array(waves["c"])], axis=1)
    return sum(_member(layers, x) for layers in members) / np.float32(len(members))


def _member(layers: Any, x: Any) -> Any:
    for layer in layers:
        z = x @ _array(layer["W"]).T + _array(layer["b"])
        x = activation(layer["activation"], z, **layer["parameters"])
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
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FILE.csv")
    try:
        main(sys.argv[1])
    except UnicodeDecodeError:
        sys.exit(f"{sys.argv[1]} is not in UTF-8; save it as CSV in UTF-8, with commas")
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
