"""Results as a table for the terminal, as Markdown, as JSON and as a picture."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backprop_gpu.atomic_file import write_file
from backprop_gpu.backends.cpu.blas import cpu_flags, usable_cores
from backprop_gpu.errors import DataError, MissingDependencyError

Row = dict[str, Any]
WIDTH = 80
_PACKAGES = (
    "backprop-gpu",
    "numpy",
    "scikit-learn",
    "torch",
    "jax",
    "onnxruntime",
    "threadpoolctl",
    "pyarrow",
    "polars",
    "pandas",
)
_VARIABLES = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "BLIS_", "NUMBA_", "XLA_", "JAX_", "TORCH")
_COMPARED = ("workload", "peer", "median", "quartiles", "ratio", "roofline", "note")
HEADINGS = {
    **dict.fromkeys(("step", "epoch", "fit", "inference"), _COMPARED),
    "startup": ("what", "median", "quartiles"),
    "parity": ("kernels", "what", "median", "quartiles", "ratio", "peak", "of the step's", "note"),
    "estimators": ("workload", "peer", "median", "quartiles", "ratio", "score", "epochs", "note"),
    "tabular": ("workload", "peer", "score", "± (folds)", "fit", "note"),
    "products": ("workload", "peer", "median", "quartiles", "ratio", "GFLOP/s"),
    "stream": ("workload", "peer", "rows/s", "median", "ratio", "allocated", "resident", "note"),
    "reading": ("workload", "peer", "median", "ratio", "MB/s", "resident", "of the file", "note"),
    "scaling": ("axis", "value", "FLOP", "median", "quartiles", "exponent"),
}
_LEFT = {"workload", "peer", "what", "kernels", "axis"}  # columns of words; numbers stand to the right


def duration(seconds: float) -> str:
    """With three digits, in µs, ms or s."""
    unit, factor = _unit(seconds)
    return f"{seconds * factor:.3g} {unit}"


def quartiles(q1: float, q3: float) -> str:
    """``1.2-1.31 ms``: both in the unit of the larger."""
    unit, factor = _unit(q3)
    return f"{q1 * factor:.3g}-{q3 * factor:.3g} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time has one to three digits before the point, and how many of it are a second."""
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return unit, factor
    return "s", 1.0


def cells(kind: str, row: Row) -> list[str]:
    """The row as text, in the order of ``HEADINGS``; what it does not have is empty."""
    given = {
        "median": duration(row["median"]) if "median" in row else "",
        "quartiles": quartiles(row["q1"], row["q3"]) if "median" in row else "",
        "ratio": f"{row['ratio']:.2f}" if "ratio" in row else "",
        "roofline": f"{100 * row['of_roofline']:.0f}%" if row.get("of_roofline") is not None else "",
        "peak": f"{row['peak'] / 2**20:.0f} MiB" if "peak" in row else "",
        "of the step's": f"{row['peak_ratio']:.2f}" if "peak" in row else "",
        "score": f"{row['score']:.4f}" if "score" in row else "",
        "± (folds)": f"{row['spread']:.4f}" if "spread" in row else "",
        "fit": duration(row["fit"]) if "fit" in row else "",
        "GFLOP/s": f"{row['gflops']:.0f}" if "gflops" in row else "",
        "value": f"{row.get('value', 0):,}",
        "FLOP": f"{row.get('flops', 0):.3g}",
        "exponent": f"{row['exponent']:.2f}" if row.get("exponent") is not None else "",
    }
    return [given[heading] if heading in given else str(row.get(heading, "")) for heading in HEADINGS[kind]]


def table(kind: str, rows: Sequence[Row]) -> str:
    """For the terminal, within 80 columns: a blank line between workloads, notes below.

    A note of a row without figures says why there are none; equal notes of a workload are one line.
    """
    headings = [heading for heading in HEADINGS[kind] if heading != "note"]
    figures, notes = [headings], dict[tuple[str, str], list[str]]()
    before = None
    for row in rows:
        texts = dict(zip(HEADINGS[kind], cells(kind, row), strict=True))
        group, note = texts[headings[0]], texts.pop("note", "")
        if note:
            notes.setdefault((group, note), []).append(texts[headings[1]])
        if "median" in row or "score" in row or "ratio" in row:
            figures += [[]] if before not in (None, group) and headings[0] != "what" else []
            figures.append(list(texts.values()))
            before = group
    widths = [max((len(line[i]) for line in figures if line), default=0) for i in range(len(headings))]
    lines = [
        "  ".join(
            text.ljust(width) if heading in _LEFT else text.rjust(width)
            for text, width, heading in zip(line, widths, headings, strict=False)
        ).rstrip()
        for line in figures
    ]
    below = [f"{group} {', '.join(peers)}: {note}" for (group, note), peers in notes.items()]
    folded = [textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in below]
    return "\n".join([*lines, *([""] if below else []), *folded])


def markdown(kind: str, rows: Sequence[Row], context: Row) -> str:
    """For BENCHMARKS.md: what was run, where and when, and the table."""
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    variables = ", ".join(f"`{name}={value}`" for name, value in context["environment"].items()) or "none"
    blas = "; ".join(f"{name}: {', '.join(pools)}" for name, pools in context.get("pools", {}).items() if pools)
    lines = [f"### {kind}, {context['date']}", "", f"`{context['command']}`", "", f"* {context['machine']}"]
    lines += [f"* {versions}", f"* Variables of the libraries: {variables}"]
    lines += [f"* Thread pools: {blas}"] if blas else []
    base = next((row["base"] for row in rows if "base" in row), "")
    lines += [f"* Ratio: time over that of {base} in the same repeat; median of the repeats"] if base else []
    lines += ["", _line(HEADINGS[kind]), "|" + "---|" * len(HEADINGS[kind])]
    return "\n".join([*lines, *(_line(cells(kind, row)) for row in rows), ""])


def _name(row: Row) -> str:
    return " ".join(row[key] for key in ("kernels", "what", "workload", "peer") if key in row)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def context(command: str, without: Sequence[str] = ()) -> Row:
    """Command, date, machine, versions and variables; ``without``: variables that were removed for the run."""
    versions = {"Python": platform.python_version()}
    installed = {distribution.name.lower(): distribution.version for distribution in importlib.metadata.distributions()}
    versions |= {name: installed[name] for name in _PACKAGES if name in installed}
    variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
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


def check_files(data: str | None, picture: str | None) -> None:
    """Find out before anything is measured whether its files can be written.

    Raises
    ------
    MissingDependencyError, DataError
        Without matplotlib; if a file cannot be written.
    """
    if picture is not None and importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError("--plot needs matplotlib; pip install matplotlib")
    for path in filter(None, (data, picture)):
        new = not os.path.exists(path)
        try:
            with open(path, "ab"):
                pass
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}") from None
        if new:
            os.unlink(path)


def write_json(kind: str, rows: Sequence[Row], context: Row, path: str) -> None:
    """Everything, each repeat included.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    try:
        write_file(path, json.dumps({"kind": kind, **context, "rows": rows}, indent=2) + "\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None


def draw(kind: str, rows: Sequence[Row], path: str) -> None:
    """Bars of median times, or for scaling a line an axis; a PNG or whatever the suffix says.

    Raises
    ------
    MissingDependencyError, DataError
        Without matplotlib, or if the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("--plot needs matplotlib; pip install matplotlib") from None
    timed = [row for row in rows if "median" in row]
    figure = Figure(figsize=(8, 5 if kind == "scaling" else 1 + 0.3 * len(timed)), layout="constrained")
    axes, medians = figure.add_subplot(), [row["median"] for row in timed]
    if kind == "scaling":
        for axis in dict.fromkeys(row["axis"] for row in timed):
            points = [(row["flops"], row["median"]) for row in timed if row["axis"] == axis]
            axes.loglog(*zip(*points, strict=True), marker="o", label=axis)
        axes.set(xlabel="FLOP", ylabel="seconds")
        axes.legend()
    else:
        names, at = [_name(row) for row in timed], range(len(timed))
        spread = [[abs(row[q] - row["median"]) for row in timed] for q in ("q1", "q3")]
        axes.barh(at, medians, xerr=spread)
        axes.set(xscale="log", xlabel=f"{kind}: seconds, median and quartiles", yticks=at, yticklabels=names)
        axes.invert_yaxis()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write {path}: {error}") from None
