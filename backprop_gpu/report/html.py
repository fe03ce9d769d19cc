"""Pieces of HTML that sections of a page are made of; the texts given to them are escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

Section = tuple[str, str, str]
"""Its id, its heading and its HTML."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "num") -> str:
    """A table that scrolls by itself where it is too wide; the first column names the rows. Cells are escaped."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{_breaking(first)}</th>{"".join(f"<td>{_breaking(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    made = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scrolled(made, header[0])


def _breaking(cell: str) -> str:
    """Escaped; a long name breaks after a dot, a slash or an underscore."""
    return re.sub(r"([a-z])([._/]+)(?=[a-z])", r"\1\2<wbr>", escape(cell))


def scrolled(html: str, name: str) -> str:
    """Something wide, which scrolls by itself; ``name`` is read out."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{html}</div>'


def facts(found: Mapping[str, str]) -> str:
    """Names with their values."""
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in found.items())
        + "</dl>"
    )


def notes(lines: Sequence[str]) -> str:
    """A paragraph for each."""
    return "".join(f'<p class="note">{escape(line)}</p>' for line in lines)


def figures(found: Sequence[str]) -> str:
    """Figures side by side, as many as there is room for."""
    return f'<div class="figures">{"".join(found)}</div>' if found else ""
