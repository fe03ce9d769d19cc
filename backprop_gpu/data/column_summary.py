"""How each column of a model's training table was read, for the terminal, the run folder and the model's page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..errors import shown
from .cells import listed
from .preprocessing import Preprocessor
from .readings import Reading

_MOST_KINDS = 12  # lines of a summary
_MOST_NAMES = 8  # of a line


@dataclass(frozen=True)
class ColumnLine:
    """A column: its part (feature, target or left out), what it was read as and why, the inputs that it becomes."""

    name: str
    role: str
    kind: str
    how: str = ""
    inputs: int = 0
    note: str = ""


def summary(p: Preprocessor) -> list[ColumnLine]:
    """Features in their order, then the targets, then what was left out."""
    inputs, said = Counter(p.origins), {(r.name, r.role): r for r in p.readings}

    def line(name: str, role: str, kind: str, how: str = "") -> ColumnLine:
        reading = said.get((name, role)) or Reading(name, role, kind)
        hows = filter(None, (reading.how, how))
        return ColumnLine(name, role, reading.kind, "; ".join(hows), inputs[name], reading.note)

    found = []
    for name in p.columns:
        known = p.categories.get(name)
        gaps = "gaps marked" if name in p.indicators else ""
        how = gaps if known is None else f"{len(known)}: {listed([c or 'missing' for c in known], 4)}"
        found.append(line(name, "feature", "number" if known is None else "category", how))
    if p.target is not None:
        classes = listed(p.target.class_names, 4) if p.target.labels else ""
        found += [line(name, "target", p.target.task, classes) for name in p.target.names]
    return found + [ColumnLine(name, "left out", "") for name in p.others]


def in_short(p: Preprocessor) -> list[str]:
    """A line for each way in which columns were read, few enough for a screen; none where the source says it all."""
    if not p.readings:
        return []
    groups: dict[tuple[str, str, str], list[str]] = {}
    for line in summary(p):
        how = line.how if line.role == "feature" and line.kind not in ("category", "text code") else ""
        name = f"{line.name} ({line.inputs})" if line.kind in ("category", "text code") and line.inputs else line.name
        groups.setdefault((line.role, line.kind, how), []).append(name)
    lines = ["columns as they were read (categories: how many inputs each):"]
    for (role, kind, how), names in list(groups.items())[:_MOST_KINDS]:
        what = f"{len(names)} {kind}" if role == "feature" else f"{role} {kind}".strip()
        lines.append(f"  {what}{f' ({shown(how, 60, quoted=False)})' if how else ''}: {listed(names, _MOST_NAMES)}")
    if len(groups) > _MOST_KINDS:
        lines.append(f"  and {len(groups) - _MOST_KINDS} more kinds")
    return lines
