"""Several runs beside each other: what they scored, their curves, and what differs between their configurations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from rich.table import Table
from rich.text import Text

from ..training.metrics import METRICS
from ..training.trackers import flat
from .html import Section, figures, notes, scrolled, table
from .run_data import PARTS, Run
from .run_report import NOT_SCORES, PART_NAMES
from .svg import Chart, Curve, drawn
from .terminal import text

# Settings that say nothing of the result.
NOT_COMPARED = ("name", "verify", "track", "checkpoint", "training.layer_statistics")


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: that of its folder, or as much of its path as tells them apart."""
    paths = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(path)} ({k})" for k, path in enumerate(paths, start=1)]


def shared_part(runs: Sequence[Run]) -> str | None:
    """The rows that all runs with scores have scores of: those for testing if there are any."""
    scored = [run.scores for run in runs if run.scores]
    return next((part for part in PARTS if scored and all(part in scores for scores in scored)), None)


def _scores(runs: Sequence[Run]) -> tuple[str | None, list[str], list[list[Any]]]:
    """The part, the metrics, and for each run their values (None where it has none)."""
    part = shared_part(runs)
    if part is None:
        return None, [], [[] for _ in runs]
    each = [run.scores.get(part, {}) for run in runs]
    keys = list(dict.fromkeys(key for scores in each for key in scores if key not in (*NOT_SCORES, "rows")))
    return part, keys, [[scores.get(key) for key in keys] for scores in each]


def _best(key: str, values: Sequence[Any], comparable: bool) -> set[int]:
    """Which of several values of a metric are the best; none if all are equal."""
    if not comparable:
        return set()
    there = [v for v in values if isinstance(v, int | float)]
    if len(set(there)) < 2:
        return set()
    greater = METRICS[key].greater_is_better if key in METRICS else False
    best = max(there) if greater else min(there)
    return {k for k, v in enumerate(values) if v == best}


def same_rows(runs: Sequence[Run]) -> bool:
    """Whether the scores of the runs are of the same task and the same rows."""
    tasks = {run.config.data.task for run in runs}
    return len(tasks | {run.model.test_rows for run in runs if run.model is not None}) <= 2 and len(tasks) == 1


def remarks(runs: Sequence[Run]) -> list[str]:
    """What one has to know before the scores are compared."""
    said = [f"{name}: {line}" for name, run in zip(names_of(runs), runs, strict=True) for line in run.missing]
    if not same_rows(runs):
        said.append("The runs have different tasks or test rows, so their scores are not of the same rows.")
    elif len({str(run.config.loss) for run in runs}) > 1:
        said.append("The runs have different losses, so their costs are not of one kind.")
    return said


def terminal_table(runs: Sequence[Run]) -> Table:
    """A row for each run; the best of each score is marked."""
    part, keys, values = _scores(runs)
    alike = same_rows(runs)
    title = "Runs" if part is None else f"Runs, scored on {PART_NAMES[part]} rows" + " (* the best)" * alike
    made = Table(title=title, title_justify="left")
    for heading in ("run", "epochs", "seconds"):
        made.add_column(heading, justify="left" if heading == "run" else "right", overflow="fold")
    best = []
    for k, key in enumerate(keys):
        made.add_column(key, justify="right", no_wrap=True)
        best.append(_best(key, [row[k] for row in values], alike))
    for i, (name, run) in enumerate(zip(names_of(runs), runs, strict=True)):
        cells = ["" if v is None else text(v) + "*" * (i in best[k]) for k, v in enumerate(values[i])]
        made.add_row(Text(name), str(len(run.epochs)), _time(run), *cells)
    return made


def _time(run: Run) -> str:
    return f"{run.epochs[-1]['seconds']:.2f}" if run.epochs else ""


def sections(runs: Sequence[Run]) -> list[Section]:
    """What the page of several runs shows."""
    found = [
        ("summary", "Runs", _summary(runs)),
        ("curves", "Learning curves", _curves(runs)),
        ("differences", "Differences of the configurations", _differences(runs)),
    ]
    return [section for section in found if section[2]]


def _summary(runs: Sequence[Run]) -> str:
    part, keys, values = _scores(runs)
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in ("run", "epochs", "seconds", "parameters", *keys))
    best = [_best(key, [row[k] for row in values], same_rows(runs)) for k, key in enumerate(keys)]
    body = []
    for i, (name, run) in enumerate(zip(names_of(runs), runs, strict=True)):
        parameters = f"{run.model.net.n_parameters:,}" if run.model is not None else ""
        cells = [f"<td>{cell}</td>" for cell in (len(run.epochs), _time(run), parameters)]
        cells += [
            f"<td{' class=best' if i in best[k] else ''}>{'' if v is None else escape(text(v))}</td>"
            for k, v in enumerate(values[i])
        ]
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    made = f'<table class="num"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    marked = "; the best of each score is underlined" * same_rows(runs)
    scored = f"<p>Scored on {PART_NAMES[part]} rows{marked}.</p>" if part else ""
    return scored + scrolled(made, "Runs") + notes(remarks(runs))


def _curves(runs: Sequence[Run]) -> str:
    """Each score of the validation rows over the epochs, one curve for each run; J where there are no such rows."""
    names = names_of(runs)
    keys = list(dict.fromkeys(key for run in runs for epoch in run.epochs for key in epoch.get("validation", {})))
    shared: dict[str, Any] = {"x_label": "epoch", "whole_x": True}
    drawings = []
    for key in keys:
        each = [Curve(name, *run.curve("validation", key)) for name, run in zip(names, runs, strict=True)]
        title = f"validation {'mean loss' if key == 'cost' else key}"
        drawings.append(drawn(Chart(title, curves=each, log=key == "cost", **shared)))
    for key, title, log in (("cost", "cost J", True), ("learning_rate", "learning rate", False)):
        each = [
            Curve(name, [e["epoch"] for e in run.epochs], [_number(e.get(key)) for e in run.epochs])
            for name, run in zip(names, runs, strict=True)
        ]
        drawings.append(drawn(Chart(title, curves=each, log=log, **shared)))
    return figures(drawings) if any(run.epochs for run in runs) else ""


def _number(x: Any) -> float | None:
    return float(x) if isinstance(x, int | float) else None


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Each setting in which the runs differ, with its value in each."""
    each_flat = [flat(run.config.model_dump()) for run in runs]
    keys = dict.fromkeys(key for each in each_flat for key in each if not key.startswith(NOT_COMPARED))
    rows = [(key, [_written(each.get(key, "–")) for each in each_flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _written(value: Any) -> str:
    """As the configuration has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _differences(runs: Sequence[Run]) -> str:
    found = differences(runs)
    if not found:
        return notes(["The configurations are equal but for their names."])
    return table(["setting", *names_of(runs)], [[key, *values] for key, values in found], "text")
