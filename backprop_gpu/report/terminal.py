"""Tables for the terminal, through rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..backends.device_report import Section
    from ..data.column_summary import ColumnLine
    from ..data.inspection import Inspection
    from ..gradcheck import GradientReport
    from ..importance import Importance


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line: rich would end the process with code 1."""
        raise BrokenPipeError


def console() -> Console:
    """Standard output; plain text where it is not a terminal."""
    return _Console(highlight=False, soft_wrap=False)


def text(value: Any) -> str:
    """A number with the digits a person reads, anything else as it is."""
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"
    return str(value)


def scores(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    """One column per part of the data (train, validation, test), one row per score; f1 says of which class it is."""
    table = Table(title="Scores", title_justify="left")
    table.add_column("", overflow="fold")
    for name in parts:
        table.add_column(name, justify="right", no_wrap=True)
    rows = dict.fromkeys(key for part in parts.values() for key in part)
    matrices = (part.get("confusion_matrix", {}) for part in parts.values())
    positive = next((matrix["positive_class"] for matrix in matrices if "positive_class" in matrix), None)
    for key in rows:
        if key in ("confusion_matrix", "calibration", "always_predicts"):
            continue
        of_one = key in ("f1", "average_precision") and positive is not None
        heading = f"{key} of {positive}" if of_one else key
        table.add_row(Text(heading), *(text(part[key]) if key in part else "" for part in parts.values()))
    return table


def folds(found: Mapping[str, Any]) -> Table:
    """Mean, deviation and range of each score over the folds of a cross-validation."""
    table = Table(title=f"Cross-validation, {len(found['folds'])} folds", title_justify="left")
    table.add_column("", overflow="fold")
    for heading in ("mean", "deviation", "lowest", "highest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, mean in found["mean"].items():
        values = [fold[name] for fold in found["folds"] if name in fold]
        table.add_row(Text(name), *map(text, (mean, found["deviation"][name], min(values), max(values))))
    return table


def importance(found: Importance) -> Table:
    """The columns of the table, the most important first."""
    title = f"What {found.metric} ({text(found.score)}) loses when a column is shuffled"
    table = Table(title=title, title_justify="left")
    table.add_column("column", overflow="fold")
    for heading in ("loss", "deviation"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, mean, deviation in found.ranked():
        table.add_row(Text(name), text(mean), text(deviation))
    return table


def inspection(found: Inspection) -> Table:
    """A row for each column of a table that was looked at."""
    table = Table(title=f"{found.source}: {found.rows} rows", title_justify="left")
    for header in ("column", "read as", "different", "missing", "remark"):
        table.add_column(header, justify="right" if header in ("different", "missing") else "left")
    for column in found.columns:
        remark = f"left out: {column.leave_out}" if column.leave_out else column.warning or column.how
        table.add_row(Text(column.name), column.kind, str(column.different), str(column.gaps or ""), Text(remark))
    return table


def columns(found: Sequence[ColumnLine]) -> Table:
    """A row for each column of a model's training table."""
    table = Table(title="Columns as they were read", title_justify="left")
    for header in ("column", "part", "read as", "how", "inputs"):
        table.add_column(header, justify="right" if header == "inputs" else "left")
    for line in found:
        how = "; ".join(filter(None, (line.how, line.note)))
        table.add_row(Text(line.name), line.role, line.kind, Text(how), str(line.inputs or ""))
    return table


def _width(out: Console, table: Table) -> int:
    return Measurement.get(out, out.options.update(width=10_000), table).maximum


def print_whole(out: Console, table: Table) -> None:
    """Print a table as wide as it is: lines that the terminal breaks can be read, cells that are cut cannot."""
    out.width = max(out.width, _width(out, table))
    out.print(table)


def print_confusion(out: Console, matrix: Mapping[str, Any], rows: str) -> None:
    """Print the confusion matrix of ``rows``: as a table, a closer one, or a line for each class; so nothing is cut."""
    out.print(Text(f"Confusion matrix of {rows}"))
    for closer in (False, True):
        table = confusion(matrix, closer)
        if _width(out, table) <= out.width:
            out.print(table)
            return
    for name, counts in zip(matrix["classes"], matrix["rows_true"], strict=True):
        parts = [f"{count} as {other}" for other, count in zip(matrix["classes"], counts, strict=True) if count]
        out.print(Text(f"true {name}: {', '.join(parts) or 'none'}"))


def print_always(out: Console, scores: Mapping[str, Any], rows: str) -> None:
    """Print a line about a model that predicts one class whatever the row is; nothing about another one."""
    if "always_predicts" not in scores:
        return
    name = scores["always_predicts"]
    out.print(
        Text(
            f"The model says {name} of all of {rows}, as a constant would; train longer, weigh the classes"
            " (training.class_weight: balanced) or choose a threshold (training.threshold: f1)"
        ),
        soft_wrap=True,
    )


def print_calibration(out: Console, scores: Mapping[str, Any], rows: str) -> None:
    """Print what was predicted and what happened, bin by bin."""
    if not scores.get("calibration"):
        return
    table = Table(title=f"Calibration on {rows}", title_justify="left")
    for heading in ("probability", "rows", "predicted", "observed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in scores["calibration"]:
        numbers = str(row["samples"]), text(row["predicted"]), text(row["observed"])
        table.add_row(f"{row['from']:g} to {row['to']:g}", *numbers)
    out.print(table)


def confusion(matrix: Mapping[str, Any], closer: bool = False) -> Table:
    """Rows are the true classes, columns the predicted ones; ``closer``: with less room between them."""
    table = Table()
    if closer:
        table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.add_column("true \\ predicted")
    for name in matrix["classes"]:
        table.add_column(Text(str(name)), justify="right")
    for name, row in zip(matrix["classes"], matrix["rows_true"], strict=True):
        table.add_row(Text(str(name)), *(str(count) for count in row))
    return table


def sections(found: Sequence[Section]) -> Table:
    """The table of ``backprop-gpu devices``."""
    table = Table(show_header=False)
    table.add_column("", style="bold", overflow="fold")
    table.add_column("", overflow="fold")
    table.add_column("", overflow="fold")
    for section in found:
        for number, row in enumerate(section.rows):
            mark = {True: "ok  ", False: "no  ", None: ""}[row.ok]
            # Text: square brackets, as in cupy-cuda13x[ctk], are not markup.
            table.add_row("" if number else section.title, Text(row.name), Text(f"{mark}{row.text}"))
        table.add_section()
    return table


def gradients(report: GradientReport, title: str) -> Table:
    """One row per parameter tensor of a gradient check."""
    table = Table(title=title, title_justify="left")
    for name in ("tensor", "relative error", "verdict", "worst entry"):
        table.add_column(name, justify="right" if name == "relative error" else "left", overflow="fold")
    for t in report.tensors:
        worst = "" if t.worst is None else f"{list(t.worst)}: got {t.got:.6g}, want {t.want:.6g}"
        verdict = ("ok" if t.ok else "WRONG") + (" (by differences)" if t.method == "central difference" else "")
        table.add_row(t.name, f"{t.error:.1e}", verdict, worst)
    return table
