"""The page: one HTML file without a network, from ``page.html``, ``page.css`` and ``page.js``.

Every number of it is computed here, for every position of its sliders, and embedded as JSON; the script chooses among
them and computes none.
"""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._page import filled
from .chain import furthest, places, sizes_of_terms

if TYPE_CHECKING:
    from .explanation import Batch, Explanation

LARGEST = 290_000  # bytes
SHOWN = (8, 6, 5, 4, 3, 2)  # rows and columns of a matrix that are shown, the largest that is not too large
MOST_LISTED = 40  # parameters in the table of the examples' own gradients
NOT_SHOWN = ("weights", "ratio", "check", "error", "places_apart")  # as they are, but turned into words


def page(explanation: Explanation) -> str:
    """The whole file as text, at most 300 KB."""
    numbers, text = data(explanation), ""
    for shown in SHOWN:
        text = _filled(explanation, _plain(numbers, shown))
        if len(text.encode()) <= LARGEST:
            break
    return text


def _filled(explanation: Explanation, numbers: Any) -> str:
    folder = Path(__file__).parent
    text = (folder / "page.html").read_text(encoding="utf-8")
    embedded = json.dumps(numbers, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "/* STYLE */": (folder / "page.css").read_text(encoding="utf-8"),
        "/* SCRIPT */": (folder / "page.js").read_text(encoding="utf-8"),
        "{{title}}": escape(explanation.title),
        "{{data}}": embedded,
    }
    return filled(text, parts)


def _plain(tree: Any, shown: int, name: str = "") -> Any:
    """What JSON can hold, rounded as it is shown; of a matrix the first rows, and of a parameter the first columns."""
    if isinstance(tree, dict):
        return {key: _plain(value, shown, name if name in NOT_SHOWN else key) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value, shown, name) for value in tree]
    if isinstance(tree, np.ndarray):
        columns = shown if name.removeprefix("d")[:1] in ("W", "b") else tree.shape[1]
        return _plain(tree[:shown, :columns].tolist(), shown)
    if isinstance(tree, float):
        return _rounded(tree, name in NOT_SHOWN) if math.isfinite(tree) else None
    return tree


def _rounded(x: float, to_digits: bool) -> float:
    """As many digits as ``number`` of page.js shows: a number that is rounded twice could be one off in the last."""
    size = abs(x)
    if to_digits:
        return float(f"{x:.6g}")
    return float(f"{x:.1e}") if size < 5e-5 or size >= 1e5 else round(x, 1 if size >= 100 else 4)


def data(explanation: Explanation) -> dict[str, Any]:
    """Everything that the page shows, for each m and each cut of the batch into two parts."""
    net, M = explanation.net, explanation.X.shape[1]
    batches = [explanation.batch(m) for m in range(1, M + 1)]
    return {
        "title": explanation.title,
        "notes": list(explanation.notes),
        "loss": net.loss.name,
        "features": list(explanation.feature_names),
        "sizes": list(net.sizes),
        "M": M,
        "m": explanation.m,
        "cut": int(explanation.split[0]),
        "places": list(places(net.L)),
        "steps": [vars(step) for step in explanation.steps],
        "Y": explanation.Y,
        "batches": [None, *(_batch(batch, explanation.check(batch.m)) for batch in batches)],
        "listed": _listed(explanation, batches),
    }


def _batch(batch: Batch, check: float) -> dict[str, Any]:
    late, early = batch.backward("late"), batch.backward("early")
    everywhere = [batch.backward(place) for place in places(batch.net.L)]
    terms = sizes_of_terms(batch.net, batch.forward, batch.Y)
    parameters = {f"d{name}": late[f"d{name}"] for name in batch.net.names}
    return {
        "forward": batch.forward,
        "late": late,
        "early": early,
        "ratio": {name: _ratio(late[name], early[name]) for name in late},
        "places_apart": max(furthest(g, parameters, terms) for g in everywhere),
        "check": check,
        "splits": [None, *(_split(batch, k) for k in range(1, batch.m))],
    }


def _ratio(late: np.ndarray, early: np.ndarray) -> float | None:
    size = float(np.linalg.norm(early))
    return float(np.linalg.norm(late)) / size if size > 0.0 else None


def _split(batch: Batch, first: int) -> list[dict[str, Any]]:
    """The four ways, each with the weights of its examples and the first entry of db[L]."""
    ways = batch.split((first, batch.m - first))
    last = f"db{batch.net.L}"
    return [{"weights": w.weights, "db": float(w.gradient[last][0, 0]), "error": w.error} for w in ways]


def _listed(explanation: Explanation, batches: list[Batch]) -> dict[str, Any]:
    """Per parameter: the gradient of each example's loss, and for each m the mean, late, early and the complex step."""
    net = explanation.net
    entries = [(name, entry) for name in net.names for entry in np.ndindex(net.parameters[name].shape)]
    means = [b.mean_of_examples() for b in batches]
    late, early = ([b.backward(place) for b in batches] for place in ("late", "early"))
    examples, step = batches[-1].of_examples, explanation.complex_step
    rows = []
    for name, (i, j) in entries[:MOST_LISTED]:
        d = f"d{name}"
        rows.append(
            {
                "name": f"{d}[{i + 1},{j + 1}]" if name[0] == "W" else f"{d}[{i + 1}]",
                "examples": [float(g[d][i, j]) for g in examples],
                "mean": [float(g[d][i, j]) for g in means],
                "late": [float(g[d][i, j]) for g in late],
                "early": [float(g[d][i, j]) for g in early],
                "step": [float(np.mean(step[name][i, j, : b.m])) for b in batches],
            }
        )
    return {"rows": rows, "total": len(entries)}
