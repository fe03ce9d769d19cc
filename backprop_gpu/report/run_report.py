"""``report.html``: one self-contained page of a run, from ``report.html``, ``report.css`` and ``report.js`` here."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .._page import filled
from ..atomic_file import write_file
from ..data.date_text import PARTS
from ..data.readings import dates_of
from ..run_folder import REPORT_FILE
from ..training.metrics import METRICS
from .html import Section, facts, figures, notes, table
from .prediction_sections import predictions
from .run_data import Run, read_run
from .svg import Chart, Curve, drawn, number
from .terminal import text

LARGEST = 500_000  # bytes
MOST_LAYERS = 6  # that are drawn, as many as there are dashes and shapes
NOT_SCORES = ("confusion_matrix", "calibration", "always_predicts")
MINIMIZED = "As it was minimized: with penalty and dropout, the mean over the batches while the weights moved."
PART_NAMES = {"train": "training", "validation": "validation", "test": "test"}


def write_report(run: Run | str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run, or of a run folder, to ``path`` (default: report.html in the folder).

    Raises
    ------
    ConfigError, CheckpointError
        As :func:`~backprop_gpu.report.run_data.read_run`.
    OSError
        If the page cannot be written.
    """
    run = run if isinstance(run, Run) else read_run(run)
    return write_page(run.folder / REPORT_FILE if path is None else path, run.title, sections(run))


def write_page(path: str | os.PathLike[str], title: str, parts: Sequence[Section]) -> Path:
    """Write a page of sections; OSError if it cannot be."""
    write_file(path, page(title, parts))
    return Path(path)


def page(title: str, parts: Sequence[Section]) -> str:
    """The whole page as text."""
    folder = Path(__file__).parent
    read = {name: (folder / f"report.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in parts)
    body = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{escape(heading)}</h2>{html}</section>'
        for name, heading, html in parts
    )
    marks = {"/* STYLE */": read["css"], "/* SCRIPT */": read["js"]}
    return filled(read["html"], {**marks, "{{title}}": escape(title), "{{links}}": links, "{{body}}": body})


def sections(run: Run) -> list[Section]:
    """What the page of a run shows, without what is not there."""
    made: list[tuple[str, str, Callable[[Run], str]]] = [
        ("summary", "Summary", summary),
        ("curves", "Learning curves", curves),
        ("layers", "Inside the layers", layers),
    ]
    found = [(name, heading, make(run)) for name, heading, make in made]
    found += predictions(run)
    found += [("columns", "Columns", columns(run)), ("device", "Device and speed", device(run))]
    found += [("parity", "Parity", parity(run)), ("config", "Configuration", config(run))]
    return [section for section in found if section[2]]


# -- sections ----------------------------------------------------------------------------------------------------------


def summary(run: Run) -> str:
    """How the run ended, what it scored, and what one should know."""
    m, told = run.metrics, list(run.missing)
    if m:
        told += [str(note) for note in m.get("notes", [])]
    best = m.get("best_epoch")
    ended = {"early stopping": "stopped early", "epochs": "took all its epochs"}.get(str(m.get("stopped")), "")
    said = {"task": run.config.data.task, "data": Path(run.config.data.source).name, "epochs": str(len(run.epochs))}
    if run.epochs:
        said |= {"steps": f"{run.epochs[-1]['step']:,}", "time": _seconds(run.epochs[-1]["seconds"])}
    if ended:
        said |= {"ended": ended, "weights": f"of epoch {best}"}
    return facts(said) + scores_table(run.scores) + notes(told)


def scores_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each metric, a column for each part of the rows."""
    keys = dict.fromkeys(key for part in scores.values() for key in part if key not in NOT_SCORES)
    rows = []
    for key in keys:
        better = METRICS[key].greater_is_better if key in METRICS else None
        arrow = {True: " ↑", False: " ↓", None: " ↓" if key == "cost" else ""}[better]
        rows.append([key + arrow, *(text(part[key]) if key in part else "" for part in scores.values())])
    if not rows:
        return ""
    legend = '<p class="more">↑ more is better, ↓ less is better; cost is the mean loss, without penalty</p>'
    return table(["score", *(PART_NAMES.get(part, part) for part in scores)], rows) + legend


def _seconds(x: float) -> str:
    return f"{x:.2g} s" if x < 10 else f"{x:.0f} s" if x < 120 else f"{x / 60:.1f} min"


def curves(run: Run) -> str:
    """Training and validation, evaluated alike; J as it was minimized; the learning rate."""
    if not run.epochs:
        return notes(["There is no history, so there are no curves."])
    kept = run.metrics.get("best_epoch")
    marks = [(float(kept), "kept")] if kept and run.epochs[0].get("validation") else []
    shared: dict[str, Any] = {"x_label": "epoch", "whole_x": True}
    drawings = []
    for key in dict.fromkeys(key for epoch in run.epochs for key in epoch.get("validation", {})):
        each = [Curve(kind, *run.curve(kind, key)) for kind in ("training", "validation")]
        title = "mean loss" if key == "cost" else key
        drawings.append(drawn(Chart(title, curves=[c for c in each if c.x], log=key == "cost", marks=marks, **shared)))
    numbers = [e["epoch"] for e in run.epochs]
    J, rate = ([_number(e.get(key)) for e in run.epochs] for key in ("cost", "learning_rate"))
    drawings.append(
        drawn(
            Chart(
                "cost J",
                curves=[Curve("J", numbers, J)],
                log=True,
                note=MINIMIZED,
                **shared,
            )
        )
    )
    drawings.append(drawn(Chart("learning rate", curves=[Curve("rate", numbers, rate)], **shared)))
    alike = "Training and validation are scored alike: after the epoch, without penalty and dropout."
    return (f"<p>{alike}</p>" if drawings[2:] else "") + figures(drawings)


def _number(x: Any) -> float | None:
    return float(x) if isinstance(x, int | float) and math.isfinite(x) else None


def layers(run: Run) -> str:
    """Norms by layer and dead units, where they were followed."""
    names = {key for epoch in run.epochs for key in epoch.get("layers", {})}
    if not names:
        return notes(
            ["Not followed in this run: training.layer_statistics was false, or it has no epochs."] * bool(run.epochs)
        )
    numbers = sorted({int(name.split()[1]) for name in names})
    if len(numbers) > MOST_LAYERS:
        numbers = sorted({numbers[round(k * (len(numbers) - 1) / (MOST_LAYERS - 1))] for k in range(MOST_LAYERS)})
    drawings = []
    for kind, title in (
        ("gradient", "norm of dJ/dW"),
        ("activation", "root mean square of A"),
        ("weights", "norm of W"),
        ("dead", "share of dead units"),
    ):
        each = [Curve(f"layer {l}", *run.curve("layers", f"{kind} {l}")) for l in numbers if f"{kind} {l}" in names]
        if not any(any(curve.y) for curve in each):  # no dead units
            continue
        dead: dict[str, Any] = {"y_range": (0.0, 1.0)} if kind == "dead" else {}
        drawings.append(drawn(Chart(title, "epoch", each, log=kind != "dead", whole_x=True, **dead)))
    said = (
        "On a sample of training rows, without dropout and penalty. A unit is dead if its output is the same for all "
        "of them. Gradients that shrink layer by layer towards the input vanish; weights that only grow may diverge."
    )
    alive = any(name.startswith("dead") for name in names) and len(drawings) < 4
    return f"<p>{said}</p>{figures(drawings)}" + notes(["No unit was dead at any time."] * alive)


def columns(run: Run) -> str:
    """Each column as it was read and encoded."""
    if run.model is None:
        return ""
    pre = run.model.preprocessor
    rows, dates = [], dates_of(pre.readings)
    said = {r.name: f"{r.kind}, {r.how}" if r.how else r.kind for r in pre.readings if r.role == "feature"}
    for name in pre.columns[:MOST_COLUMNS]:
        if name in pre.categories:
            found = pre.categories[name]
            shown = ", ".join(c or "(missing)" for c in found[:8]) + (f", … {len(found) - 8} more" if found[8:] else "")
            rows.append([name, "categories", f"{len(found)}: {shown}", f"{len(found)} of 0 or 1"])
            continue
        j = pre.numeric.index(name)
        scaled = f"(x − {number(pre.mean[j])}) / {number(pre.scale[j])}".replace("− −", "+ ")
        gap = "" if pre.fill is None else f"; a gap is {number(pre.fill[j])}"
        if pre.robust:
            scaled += ", clipped smoothly at ±3"
        bins = pre.bins.widths[j] if j < len(pre.bins.widths) else 0
        form = dates.get(name)
        parts = 0 if form is None else len(PARTS[form.parts])
        inputs = [
            "1",
            *([f"{parts} parts of the date"] * (parts > 0)),
            *([f"{bins} bins"] * (bins > 0)),
            *(["1 that marks gaps"] * (name in pre.indicators)),
        ]
        kind = said.get(name, "number") if form is None else f"{form.parts}, {form.said()}"
        rows.append([name, kind, ("" if form is None else "days since 1970: ") + scaled + gap, ", and ".join(inputs)])
    codec = pre.target
    if codec is not None:
        what = f"{len(codec.class_names)} classes: {', '.join(codec.class_names[:12])}" if codec.labels else codec.task
        rows.append([", ".join(codec.names), "target", what, ""])
    more = len(pre.columns) - MOST_COLUMNS
    left = [f"{more} more columns are not listed."] if more > 0 else []
    return table(["column", "read as", "encoded", "inputs"], rows, "text") + notes(left)


MOST_COLUMNS = 200


def device(run: Run) -> str:
    """Where it ran and how fast."""
    m = run.metrics
    said: dict[str, str] = {key: str(m[key]) for key in ("device", "kernels", "dtype") if key in m}
    if "sizes" in m and "parameters" in m:
        said["network"] = " – ".join(map(str, m["sizes"]))
        said["parameters"] = f"{m['parameters']:,}"
    if run.epochs and run.epochs[-1]["seconds"] > 0:
        seconds, last = run.epochs[-1]["seconds"], run.epochs[-1]
        said["an epoch"] = _seconds(seconds / len(run.epochs))
        said["steps a second"] = f"{last['step'] / seconds:,.0f}"
        rows = (m.get("train") or {}).get("rows")
        if rows:
            said["rows a second"] = f"{rows * len(run.epochs) / seconds:,.0f}"
    said["batch size"] = str(run.config.training.batch_size)
    more = '<p class="more">Speeds include what is scored and written after each epoch.</p>'
    return facts(said) + more * ("an epoch" in said)


def parity(run: Run) -> str:
    """What the run's own checks of the device said."""
    lines = run.metrics.get("parity")
    if not lines:
        return notes(["Not checked in this run; backprop-gpu train --verify checks a step before and after training."])
    said = [f"{when} training: {line}" for when, line in zip(("before", "after"), lines, strict=False)]
    return "".join(f"<p>{escape(line)}</p>" for line in said)


def config(run: Run) -> str:
    """The configuration, defaults included."""
    return (
        f'<details open><summary>config.yaml</summary><pre tabindex="0">{escape(run.config.to_yaml())}</pre></details>'
    )
