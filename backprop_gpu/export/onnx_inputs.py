"""The nodes of an ONNX graph that make a network's inputs of raw columns: fill, scale, mark gaps, bins, one-hot."""

from __future__ import annotations

import itertools

import numpy as np

from ..data.date_text import PARTS
from ..data.dates import DateForm
from .onnx_dates import days_of, parts_of
from .onnx_graph import Graph
from .raw_inputs import ITSELF, Column, RawInputs

_FAR = 1e100  # of z, of which the clip is exactly +-3: its square is still a number


def inputs(g: Graph, plan: RawInputs) -> str:
    """The network's inputs (n, n_0), float32."""
    columns, parts = _columns(g, plan), list[str]()
    if plan.numbers:
        values = _numbers(g, plan, columns) if plan.named else g.input("X", "DOUBLE", len(plan.columns))
        missing = g.add("IsNaN", values)
        parts.append(_scaled(g, plan, values, missing))
        if plan.marked:
            marked = g.add("Gather", missing, g.constant(plan.marked, np.int64), axis=1)
            parts.append(g.cast(marked, "FLOAT"))
        if any(len(edges) for edges in plan.edges):
            parts.append(_bins(g, plan.edges, values, missing))
    parts += [_one_hot(g, plan, columns[c.name], c) for c in plan.columns if c.kind == "category"]
    return g.join(parts)


def _columns(g: Graph, plan: RawInputs) -> dict[str, str]:
    """Each column as (n, 1): numbers float64, categories and dates texts; none where rows are one array of numbers."""
    if not plan.named:
        return {}
    return {c.name: g.input(c.name, "DOUBLE" if c.kind == "number" else "STRING", 1) for c in plan.columns}


def _numbers(g: Graph, plan: RawInputs, columns: dict[str, str]) -> str:
    """All numbers, (n, n_numbers) float64, NaN where missing."""
    values, parts = dict(columns), dict[str, list[str]]()
    for column in plan.columns:
        if column.kind in PARTS:
            assert isinstance(column.form, DateForm), "a column of dates has a form"
            values[column.name] = days = days_of(g, columns[column.name], column.form, column.name)
            parts[column.name] = parts_of(g, days, column.kind)
    return g.join([values[name] if part == ITSELF else parts[name][part] for name, part in plan.numbers])


def _scaled(g: Graph, plan: RawInputs, values: str, missing: str) -> str:
    if plan.fill is not None:
        values = g.add("Where", missing, g.constant(plan.fill[None], np.float64), values)
    else:
        problem = "a number is missing, and the model was trained without gaps"
        values = g.add("Add", values, g.refuse(missing, problem))
    centred = g.add("Sub", values, g.constant(plan.centre[None], np.float64))
    z = g.add("Div", centred, g.constant(plan.spread[None], np.float64))
    if plan.clip is not None:
        z = g.add("Clip", z, g.constant(-_FAR, np.float64), g.constant(_FAR, np.float64))
        part = g.add("Div", z, g.constant([plan.clip], np.float64))
        root = g.add("Sqrt", g.add("Add", g.constant([1.0], np.float64), g.add("Mul", part, part)))
        z = g.add("Div", z, root)
    return g.cast(z, "FLOAT")


def _bins(g: Graph, edges: tuple[np.ndarray, ...], values: str, missing: str) -> str:
    """The piecewise-linear encoding: the part of each bin that lies below the value; 0 of a missing one."""
    wide = [j for j, e in enumerate(edges) if len(e)]
    owner = [at for at, j in enumerate(wide) for _ in itertools.pairwise(edges[j])]
    x = g.add("Gather", values, g.constant(wide, np.int64), axis=1)
    gap = g.add("Gather", missing, g.constant(wide, np.int64), axis=1)
    x = g.add("Where", gap, g.constant([[edges[j][0] for j in wide]], np.float64), x)
    x = g.add("Gather", x, g.constant(owner, np.int64), axis=1)
    low = np.concatenate([edges[j][:-1] for j in wide])[None]
    width = np.concatenate([np.diff(edges[j]) for j in wide])[None]
    part = g.add("Div", g.add("Sub", x, g.constant(low, np.float64)), g.constant(width, np.float64))
    part = g.add("Clip", part, g.constant(0.0, np.float64), g.constant(1.0, np.float64))
    return g.cast(part, "FLOAT")


def _one_hot(g: Graph, plan: RawInputs, texts: str, column: Column) -> str:
    known = column.categories
    otherwise = known.index("") if plan.unknown == "missing" and "" in known else -1
    number = g.add(
        "LabelEncoder",
        texts,
        domain="ai.onnx.ml",
        keys_strings=list(known),
        values_int64s=list(range(len(known))),
        default_int64=otherwise,
    )
    if plan.unknown == "error":
        new = g.add("Less", number, g.constant([0], np.int64))
        zero = g.refuse(new, f"column {column.name!r}: a category that training did not see, and unknown is error")
        number = g.add("Add", number, g.cast(zero, "INT64"))
    return g.cast(g.add("Equal", number, g.constant(np.arange(len(known))[None], np.int64)), "FLOAT")
