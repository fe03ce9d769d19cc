"""Results as a table for the terminal, as Markdown, as JSON and as a picture."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ..backends.host.blas import cpu_flags, usable_cores
from ..errors import DataError, MissingDependencyError

Row = dict[str, Any]
_PACKAGES = ("backprop-gpu", "numpy", "numba", "scikit-learn", "torch", "jax", "onnxruntime", "threadpoolctl")
_VARIABLES = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "BLIS_", "NUMBA_", "XLA_", "JAX_", "TORCH")
_COMPARED = ("workload", "peer", "median", "IQR", "ratio to ours", "% of floor", "first", "note")
HEADINGS = {
    **dict.fromkeys(("step", "epoch", "fit", "inference"), _COMPARED),
    "startup": ("what", "median", "IQR"),
    "growth": ("axis", "value", "GFLOP", "median", "IQR", "exponent of FLOPs"),
}


def duration(seconds: float) -> str:
    """With three digits, in µs, ms or s."""
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000.0:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def cells(kind: str, row: Row) -> list[str]:
    """The row as text, in the order of ``HEADINGS``."""
    timed = [duration(row["median"]), f"{duration(row['q1'])} - {duration(row['q3'])}"] if "median" in row else ["", ""]
    if kind == "startup":
        return [row["what"], *timed]
    if kind == "growth":
        fitted = f"{row['exponent']:.2f}" if "exponent" in row else ""
        return [row["axis"], f"{row['value']:,}", f"{row['flops'] / 1e9:.3g}", *timed, fitted]
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
    share = f"{100 * row['of_floor']:.0f}%" if row.get("of_floor") is not None else ""
    first = duration(row["first"]) if "first" in row else ""
    return [row["workload"], row["peer"], *timed, ratio, share, first, row.get("note") or ""]


def table(kind: str, rows: Sequence[Row]) -> Table:
    """For the terminal."""
    found = Table(title=f"bench {kind}", title_justify="left")
    for heading in HEADINGS[kind]:
        found.add_column(heading, overflow="fold")
    for number, row in enumerate(rows):
        group = row.get("workload", row.get("axis"))
        if number and group != rows[number - 1].get("workload", rows[number - 1].get("axis")):
            found.add_section()
        found.add_row(*(Text(cell) for cell in cells(kind, row)))
    return found


def markdown(kind: str, rows: Sequence[Row], context: Row) -> str:
    """For BENCHMARKS.md: what was run, where and when, and the table."""
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    variables = ", ".join(f"`{name}={value}`" for name, value in context["environment"].items()) or "none"
    lines = [
        f"### {kind}, {context['date']}",
        "",
        f"`{context['command']}`  ",
        f"{context['machine']}  ",
        f"{versions}  ",
        f"Variables of the libraries: {variables}",
        "",
        "| " + " | ".join(HEADINGS[kind]) + " |",
        "|" + "---|" * len(HEADINGS[kind]),
    ]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(kind, row)) + " |" for row in rows]
    return "\n".join([*lines, ""])


def context(command: str, without: Sequence[str] = ()) -> Row:
    """Date, machine, versions and variables; ``without``: variables that were removed for the run."""
    variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    avx512 = "AVX-512" if "avx512f" in cpu_flags() else "no AVX-512"
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {usable_cores()} cores, {avx512}, {platform.system()} {platform.machine()}",
        "versions": versions,
        "environment": {name: value for name, value in variables.items() if name not in without},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def draw(kind: str, rows: Sequence[Row], path: str) -> None:
    """Bars of median times, or for growth a line an axis; a PNG or whatever the suffix says.

    Raises
    ------
    MissingDependencyError, DataError
        Without matplotlib, or if the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("--plot needs matplotlib; pip install 'backprop-gpu[plot]'") from None
    timed = [row for row in rows if "median" in row]
    figure = Figure(figsize=(8, 5 if kind == "growth" else 1 + 0.3 * len(timed)), layout="constrained")
    axes = figure.add_subplot()
    if kind == "growth":
        for axis in dict.fromkeys(row["axis"] for row in timed):
            points = [(row["flops"], row["median"]) for row in timed if row["axis"] == axis]
            axes.loglog(*zip(*points, strict=True), marker="o", label=axis)
        axes.set(xlabel="FLOP", ylabel="seconds")
        axes.legend()
    else:
        names = [row.get("what") or f"{row['workload']} {row['peer']}" for row in timed]
        low, high = ([abs(row[q] - row["median"]) for row in timed] for q in ("q1", "q3"))
        axes.barh(range(len(timed)), [row["median"] for row in timed], xerr=[low, high])
        axes.set(
            xscale="log", xlabel=f"seconds: {kind}, median and quartiles", yticks=range(len(timed)), yticklabels=names
        )
        axes.invert_yaxis()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write {path}: {error}") from None
