"""An explanation of the 1/m, and the ratios of a diagnosis, on the terminal, through rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from .terminal import print_whole

if TYPE_CHECKING:
    from ..explain import Batch, Diagnosis, Explanation, Joined
    from ..explain.steps import Step

ROWS, COLUMNS, LISTED = 6, 6, 16  # of a matrix, and of parameters, that are shown
RIGHT = 1e-12  # larger differences are no roundings


def number(x: float) -> str:
    """Four decimals, or two digits of what they would not show."""
    if x == int(x) and abs(x) < 1e5:
        return str(int(x))
    return f"{x:.4f}" if 5e-5 <= abs(x) < 1e5 else f"{x:.1e}"


def matrix(x: np.ndarray) -> str:
    """The numbers of a matrix in columns, one row a line."""
    cells = [[number(v) for v in row[:COLUMNS]] + ["…"] * (x.shape[1] > COLUMNS) for row in x[:ROWS]]
    width = max(len(cell) for row in cells for cell in row)
    lines = ["[" + " ".join(cell.rjust(width) for cell in row) + "]" for row in cells]
    return "\n".join([*lines, *([f"… {x.shape[0] - ROWS} more rows"] if x.shape[0] > ROWS else [])])


def print_explanation(explanation: Explanation, out: Console) -> None:
    """The whole story: the batch, every step late beside early, the mean of the gradients, the batch in parts."""
    batch = explanation.batch()
    first = next(step for step in explanation.steps if step.name.startswith("dA"))
    out.print(Text("Where does the 1/m go?", "bold"))
    out.print(Text(f"With the numbers of {explanation.title}, m = {batch.m}"), end="\n\n")
    out.print(
        f"J = (1/m) Σ L is a mean, yet {first.formula} has no 1/m: it is the derivative of the loss L of each example. "
        "The derivative of a mean is the mean of the derivatives, so the 1/m may be multiplied in at the first step "
        "(early: every dA and dZ is a derivative of J), or at the last, in dW and db (late: the course), as long as "
        "it happens once.",
        markup=False,
    )
    for note in explanation.notes:
        out.print(f"note: {note}", markup=False)
    _heading(out, "forward: one column per example, and a mean in the end")
    backward = [step for step in explanation.steps if step.name.startswith("d")]
    for step in (step for step in explanation.steps if step not in backward):
        out.print(Text(f"{step.formula}   ({shape_of(step, batch)})\n{_indented(batch.forward[step.name])}"))
    _heading(out, "backward: late beside early")
    for step in backward:
        print_whole(out, _both(step, batch))
    _heading(out, "the mean of the gradients is the gradient of the mean")
    print_whole(out, _means(explanation, batch))
    out.print(_checked(explanation), markup=False)
    if batch.m > 1:
        sizes = " + ".join(map(str, explanation.split))
        _heading(out, f"the batch in parts of {sizes}: micro-batches, or ranks")
        print_whole(out, _ways(batch.split(explanation.split), f"db{explanation.net.L}"))


def _heading(out: Console, text: str) -> None:
    out.print()
    out.print(Rule(text, align="left", style="default"), width=min(out.width, 80))


def shape_of(step: Step, batch: Batch) -> str:
    """``n_1 × m = 3 × 4``."""
    tensor = batch.forward[step.name] if step.name in batch.forward else batch.backward("late")[step.name]
    return step.shape + f" = {' × '.join(map(str, tensor.shape))}" * ("n" in step.shape or "m" in step.shape)


def _indented(x: np.ndarray) -> str:
    return "\n".join(f"  {line}" for line in matrix(x).splitlines())


def _both(step: Step, batch: Batch) -> Table:
    """One step of the backward pass under both conventions."""
    late, early = (batch.backward(place)[step.name] for place in ("late", "early"))
    size = float(np.linalg.norm(early))
    ratio = float(np.linalg.norm(late)) / size if size else None
    ratio_text = (
        "all 0"
        if ratio is None
        else "late / early = "
        + ("1" if abs(ratio - 1) < RIGHT else f"m = {batch.m}" if abs(ratio / batch.m - 1) < RIGHT else number(ratio))
    )
    last = step.name[1] in "Wb"
    first = not last and step.formula.startswith("dAL")
    table = Table(
        title=Text(f"{step.name}  ({shape_of(step, batch)})  {ratio_text}"),
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 2),
    )
    table.add_column(Text("late"), no_wrap=True)
    table.add_column(Text("early"), no_wrap=True)
    table.add_row(Text(step.with_m if last else step.formula), Text("dAL = (1/m) · dL/dAL" if first else step.formula))
    table.add_row(Text(matrix(late)), Text(matrix(early)))
    return table


def _means(explanation: Explanation, batch: Batch) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    shown = min(batch.m, 4)
    table.add_column("")
    for i in range(shown):
        table.add_column(f"dL{i + 1}", justify="right", no_wrap=True)
    if batch.m > shown:
        table.add_column("…")
    for heading in ("mean", "late", "early", "complex step"):
        table.add_column(heading, justify="right", no_wrap=True)
    mean, late, early = batch.mean_of_examples(), batch.backward("late"), batch.backward("early")
    entries = [(name, e) for name in explanation.net.names for e in np.ndindex(explanation.net.parameters[name].shape)]
    for name, entry in entries[:LISTED]:
        step = float(np.mean(explanation.complex_step[name][entry][: batch.m]))
        d = f"d{name}"
        of_examples = [number(float(g[d][entry])) for g in batch.of_examples[:shown]] + ["…"] * (batch.m > shown)
        at = f"{d}[{entry[0] + 1},{entry[1] + 1}]" if name[0] == "W" else f"{d}[{entry[0] + 1}]"
        same = [number(float(g[d][entry])) for g in (mean, late, early)]
        table.add_row(Text(at), *of_examples, *same, number(step))
    return table


def _checked(explanation: Explanation) -> str:
    total, error = sum(value.size for value in explanation.net.parameters.values()), explanation.check()
    verdict = "right" if error < RIGHT else "WRONG"
    return (
        f"All {total} parameters against the complex step, at every place of the 1/m: {verdict} (at most {error:.1e})."
    )


def _ways(ways: tuple[Joined, ...], db: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("each part divides by", "then", "an example counts", f"{db}[1]", ""):
        table.add_column(heading, justify="right" if heading.startswith("d") else "left", no_wrap=True)
    for way in ways:
        verdict = "right" if way.error < RIGHT else f"WRONG by up to {way.error:.0%}"
        if way.error < RIGHT and not way.right:
            verdict = "right, as the parts are even"
        counts = " ".join(number(w) for w in dict.fromkeys(way.weights))
        table.add_row(way.divides, way.joins, counts, number(float(way.gradient[db][0, 0])), verdict)
    return table


def ratios(diagnosis: Diagnosis) -> Table:
    """Each gradient beside the right one."""
    table = Table(title="Yours beside the right gradient", title_justify="left")
    table.add_column("gradient")
    table.add_column("yours / right", justify="right")
    table.add_column("relative error", justify="right")
    table.add_column("")
    for t in diagnosis.tensors:
        ratio = "no one number" if t.ratio is None else f"{t.ratio:.6g}"
        table.add_row(t.name, ratio, f"{t.error:.1e}", "right" if t.ok else "WRONG")
    return table
