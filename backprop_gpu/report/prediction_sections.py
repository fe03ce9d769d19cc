"""The sections of a report that are about predictions: confusion or residuals, calibration, decision boundary."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..data.table import table_from_arrays
from ..training.class_metrics import BINS, calibration, ece
from ..training.trainer import class_indices
from .html import Section, facts, scrolled, table
from .numbers import Boundary, boundary, contour, margins
from .run_data import Predictions, Run
from .svg import BOTTOM, LEFT, RIGHT, STYLES, TOP, Chart, Curve, drawn, number

MOST_CLASSES, MOST_DOTS, MOST_OUTPUTS, MOST_CONFUSED = 20, 400, 6, 20
ROWS_OF = {"test": "the test rows", "validation": "the validation rows", "train": "the training rows"}
MOST_SHUFFLED, FEWEST_SHUFFLED, REPEATS, MOST_RANKED = 1000, 50, 3, 20
WORK = 100_000_000  # products of weights and rows that importance may take
SHADES = 6  # of a field of probabilities or values


def predictions(run: Run) -> list[Section]:
    """Those that there are for the run's task and rows."""
    found = run.predictions
    if found is None:
        return []
    codec, rows = found.codec, f"<p>Of {found.table.n_samples:,} rows, {ROWS_OF[found.part]}.</p>"
    values = codec.task in ("regression", "count")
    made: list[Section] = []
    if values:
        made.append(("residuals", "Residuals", rows + _residuals(found)))
    elif codec.labels:
        matrix = run.scores.get(found.part, {}).get("confusion_matrix")
        made.append(("confusion", "Confusion matrix", rows + _confusion(matrix) if matrix else ""))
    if not values:
        made.append(("calibration", "Calibration", _calibration(found)))
    elif "quantiles" in vars(found.model.net.loss):
        made.append(("calibration", "Calibration", _coverage(found)))
    if len(found.model.preprocessor.columns) > 1:
        made.append(("importance", "Which columns matter", _importance(found)))
    return [
        *made,
        ("boundary", "Decision boundary" if codec.labels else "Prediction over both columns", _boundary(found)),
    ]


# -- classes -----------------------------------------------------------------------------------------------------------


def _confusion(matrix: Mapping[str, Any]) -> str:
    names, counts = [str(name) for name in matrix["classes"]], np.asarray(matrix["rows_true"])
    if len(names) > MOST_CLASSES:
        return _most_confused(names, counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = []
    for k, name in enumerate(names):
        cells = "".join(
            f'<td{" class=right" if j == k else ""} style="--share:{100 * share[k, j]:.0f}%">{counts[k, j]:,}</td>'
            for j in range(len(names))
        )
        body.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    head = f"<thead><tr><th>true ↓ predicted →</th>{head}</tr></thead>"
    made = f'<table class="confusion">{head}<tbody>{"".join(body)}</tbody></table>'
    return scrolled(made, "Confusion matrix") + _by_class(names, counts)


def _by_class(names: Sequence[str], counts: np.ndarray) -> str:
    right, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    rows = [
        [name, _ratio(right[k], predicted[k]), _ratio(right[k], true[k]), f"{true[k]:,}"]
        for k, name in enumerate(names)
    ]
    return table(["class", "precision", "recall", "rows"], rows)


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "–"


def _most_confused(names: Sequence[str], counts: np.ndarray) -> str:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [np.unravel_index(k, counts.shape) for k in order if wrong.flat[k]]
    rows = [[names[i], names[j], f"{wrong[i, j]:,}", f"{counts[i].sum():,}"] for i, j in pairs]
    said = f"<p>{np.trace(counts):,} right; of {len(names)} classes, those that are confused most:</p>"
    return said + table(["true class", "predicted", "rows", "of"], rows)


def _calibration(of: Predictions) -> str:
    codec, truth = of.codec, class_indices(of.truth) if of.codec.task == "multiclass" else of.truth
    bins = calibration(truth, of.outputs, of.table.weights)
    several = codec.task == "multiclass"
    what = (
        f"“{codec.class_names[1]}”"
        if codec.task == "binary"
        else "the class that is predicted" * several or "each label"
    )
    chart = Chart(
        f"how often {what} was {'right' if several else 'true'}",
        "predicted probability",
        [Curve("observed", [row["predicted"] for row in bins], [row["observed"] for row in bins])],
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
    )
    rows = [[f"{row['predicted']:.3f}", f"{row['observed']:.3f}", f"{row['samples']:,}"] for row in bins]
    said = (
        f"<p>Rows in {BINS} bins by the probability of {escape(what)}. On the dashed line, 70% of the rows that "
        "get 70% are. Expected calibration error: "
        f'<strong id="ece">{ece(truth, of.outputs, of.table.weights):.4f}</strong></p>'
    )
    return f'{said}<div class="figures">{drawn(chart)}{table(["mean probability", "observed", "rows"], rows)}</div>'


# -- columns ---------------------------------------------------------------------------------------------------------


def _importance(of: Predictions) -> str:
    """What a score loses when a column is shuffled, of as many rows as take no time; empty where that is too few."""
    columns = len(of.model.preprocessor.columns)
    rows = min(of.table.n_samples, MOST_SHUFFLED, WORK // (of.model.net.n_parameters * columns * REPEATS))
    if rows < min(FEWEST_SHUFFLED, of.table.n_samples):
        return "<p>Not computed here, since the model is large: <code>backprop-gpu importance RUN</code> does it.</p>"
    chosen = np.linspace(0, of.table.n_samples - 1, rows).astype(np.int64)
    found = of.model.permutation_importance(of.table.take(chosen), repeats=REPEATS)
    ranked = found.ranked()
    widest = max(max(mean for _, mean, _ in ranked), 1e-300)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><i style="width:{100 * max(mean, 0.0) / widest:.1f}%"></i></td>'
        f"<td>{number(mean)} ± {number(deviation)}</td></tr>"
        for name, mean, deviation in ranked[:MOST_RANKED]
    )
    more = f'<p class="more">{len(ranked) - MOST_RANKED} more columns matter less.</p>' if ranked[MOST_RANKED:] else ""
    head = f'<tr><th scope="col">shuffled</th><th></th><th scope="col">loss of {escape(found.metric)}</th></tr>'
    said = (
        f"<p>What {escape(found.metric)} ({number(found.score)} on {rows:,} rows) loses when a column is shuffled "
        f"among the rows: the mean of {REPEATS} shuffles ± their deviation. Columns that say the same share it.</p>"
    )
    made = f'<table class="bars"><thead>{head}</thead><tbody>{body}</tbody></table>'
    return said + scrolled(made, "Importance of columns") + more


# -- values ------------------------------------------------------------------------------------------------------------


def _residuals(of: Predictions) -> str:
    codec = of.codec
    truth, guess = of.values()
    parts = []
    for k, name in list(enumerate(codec.names))[:MOST_OUTPUTS]:
        t, p = truth[:, k], guess[:, k]
        error = p - t
        rows = np.unique(np.linspace(0, len(t) - 1, min(len(t), MOST_DOTS)).astype(int))
        dots = [Curve("rows", x[rows].tolist(), y[rows].tolist(), points=True) for x, y in ((t, p), (p, error))]
        low, high = float(min(t.min(), p.min())), float(max(t.max(), p.max()))
        span = (low, high) if high > low else (low - 1.0, high + 1.0)
        said = {
            "mean error": number(float(error.mean())),
            "root mean square": number(float(np.sqrt(np.mean(error * error)))),
            "half of the rows within": "±" + number(float(np.median(np.abs(error)))),
            "largest": number(float(np.abs(error).max())),
        }
        drawings = [
            drawn(
                Chart(
                    f"predicted {name}",
                    f"true {name}",
                    dots[:1],
                    x_range=span,
                    y_range=span,
                    diagonal=True,
                    note=f"{len(rows):,} of {len(t):,} rows" if len(rows) < len(t) else "",
                )
            ),
            drawn(Chart("error: predicted − true", f"predicted {name}", dots[1:])),
            _histogram(error),
        ]
        parts.append(f'<h3>{escape(name)}</h3>{facts(said)}<div class="figures">{"".join(drawings)}</div>')
    return "".join(parts)


def _columns(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(len(x), -1)


def _histogram(error: np.ndarray) -> str:
    counts, edges = np.histogram(error, bins=24)
    top, span = float(counts.max()) * 1.05, float(edges[-1] - edges[0])
    width = (RIGHT - LEFT) / len(counts)
    bars = "".join(
        f'<path class="bar" d="M{LEFT + k * width + 0.7:.1f} {BOTTOM}V{BOTTOM - (BOTTOM - TOP) * n / top:.1f}'
        f'h{width - 1.4:.1f}V{BOTTOM}z"><title>{n:,} rows</title></path>'
        for k, n in enumerate(counts.tolist())
        if n
    )
    ranges: dict[str, Any] = {"x_range": (float(edges[0]), float(edges[0]) + span), "y_range": (0.0, top)}
    return drawn(Chart("rows by error", "predicted − true", [], under=bars, **ranges))


def _coverage(of: Predictions) -> str:
    codec, quantiles = of.codec, [float(q) for q in vars(of.model.net.loss)["quantiles"]]
    truth = _columns(codec.decode(of.truth))
    each = _columns(codec.decode(of.outputs)).reshape(len(truth), truth.shape[1], len(quantiles))
    curves = [
        Curve(name, quantiles, np.mean(truth[:, k, None] <= each[:, k], axis=0).tolist())
        for k, name in list(enumerate(codec.names))[:STYLES]
    ]
    chart = Chart("share of rows below the quantile", "quantile", curves, x_range=(0, 1), y_range=(0, 1), diagonal=True)
    return f'<div class="figures">{drawn(chart)}</div>'


# -- two inputs --------------------------------------------------------------------------------------------------------


def _boundary(of: Predictions) -> str:
    """The field of a model whose only columns are two of numbers, with the rows over it; empty for others."""
    pre, codec, model = of.model.preprocessor, of.codec, of.model
    one = bool(codec.labels) or len(codec.names) == 1
    if len(pre.columns) != 2 or pre.categories or codec.task == "multilabel" or not one:
        return ""
    X = np.asarray(of.table.numeric, np.float64)
    if np.isnan(X).any():
        return ""
    names = list(pre.columns)
    found = boundary(lambda grid: model.predict_proba(table_from_arrays(grid, feature_names=names)), X)
    chosen = np.unique(np.linspace(0, len(X) - 1, min(len(X), MOST_DOTS)).astype(int))
    place = _Field(found)
    if codec.labels:
        truth = class_indices(of.truth).astype(int).reshape(-1)[chosen]
        fields, classes = margins(found.outputs, codec.threshold), codec.class_names
        shade = found.outputs[..., 0] if len(fields) == 1 else found.outputs.max(axis=-1)
        curves = [_dots(classes[k], X[chosen][truth == k]) for k in range(min(len(classes), STYLES))]
        lines = "".join(place.line(contour(field)) for field in fields)
    else:
        shade = codec.decode(model.net.loss.point(found.outputs.reshape(len(found.x) ** 2, -1)))
        shade = shade.reshape(len(found.y), len(found.x))
        levels = np.linspace(shade.min(), shade.max(), SHADES + 2)[1:-1].tolist()
        curves, lines = [_dots("rows", X[chosen])], "".join(place.line(contour(shade, v)) for v in levels)
    chart = Chart(
        "the line is where the predicted class changes" if codec.labels else "lines of equal prediction",
        f"{pre.columns[0]} (across), {pre.columns[1]} (up)",
        curves,
        under=place.shaded(shade) + lines,
        x_range=(float(found.x[0]), float(found.x[-1])),
        y_range=(float(found.y[0]), float(found.y[-1])),
    )
    return f'<div class="figures wide">{drawn(chart)}</div>'


def _dots(name: str, rows: np.ndarray) -> Curve:
    return Curve(str(name), rows[:, 0].tolist(), rows[:, 1].tolist(), points=True)


class _Field:
    """Where the points of a grid are in the drawing."""

    def __init__(self, found: Boundary) -> None:
        self.dx, self.dy = (RIGHT - LEFT) / (len(found.x) - 1), (BOTTOM - TOP) / (len(found.y) - 1)

    def line(self, segments: Sequence[Any]) -> str:
        """A contour, of pieces in units of the grid."""
        path = "".join(
            f"M{LEFT + xa * self.dx:.1f} {BOTTOM - ya * self.dy:.1f}"
            f"L{LEFT + xb * self.dx:.1f} {BOTTOM - yb * self.dy:.1f}"
            for (xa, ya), (xb, yb) in segments
        )
        return f'<path class="contour" d="{path}"/>' if path else ""

    def shaded(self, values: np.ndarray) -> str:
        """Stretches of equal shade, row by row: the larger the value the darker."""
        low, high = float(values.min()), float(values.max())
        if not high > low:
            return ""
        steps = np.minimum(((values - low) / (high - low) * SHADES).astype(int), SHADES - 1)
        paths = [""] * SHADES
        for i, row in enumerate(steps):
            y = max(float(TOP), BOTTOM - (i + 0.5) * self.dy)
            height = min(self.dy, BOTTOM - y)
            ends = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
            for start, stop in itertools.pairwise(ends):
                left, right = (min(max(LEFT + (k - 0.5) * self.dx, LEFT), RIGHT) for k in (start, stop))
                paths[row[start]] += f"M{left:.1f} {y:.1f}H{right:.1f}v{height:.2f}H{left:.1f}z"
        return "".join(
            f'<path class="shade" style="opacity:{0.5 * k / (SHADES - 1):.2f}" d="{path}"/>'
            for k, path in enumerate(paths)
            if path and k
        )
