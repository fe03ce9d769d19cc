"""Run the examples of a Markdown page: each ```python block in order, against the ```text block that follows it."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<body>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A python block, the line its code starts on, and the output that the page shows (None: none is shown)."""

    code: str
    line: int
    output: str | None


def examples(text: str) -> list[Example]:
    """The page's python blocks; a ```text block belongs to the one above if only blank lines lie between them."""
    fences = list(_FENCE.finditer(text))
    found = []
    for i, fence in enumerate(fences):
        if fence["language"] != "python":
            continue
        output = None
        if i + 1 < len(fences):
            following = fences[i + 1]
            if following["language"] == "text" and not text[fence.end() : following.start()].strip():
                output = following["body"]
        found.append(Example(fence["body"], text.count("\n", 0, fence.start("body")) + 1, output))
    return found


def blocks(text: str, language: str) -> list[str]:
    """What the page's blocks of a language hold."""
    return [fence["body"] for fence in _FENCE.finditer(text) if fence["language"] == language]


def run_page(path: Path, each_alone: bool = False) -> list[str]:
    """Run a page's examples; return one message for each whose output is not what the page shows.

    ``each_alone``: not one after the other in one namespace, but each in a new one, as by who copies one of them.
    """
    namespace: dict[str, Any] = {"__name__": path.stem}
    wrong = []
    for example in examples(path.read_text(encoding="utf-8")):
        if each_alone:
            namespace = {"__name__": path.stem}
        # Blank lines in front make a traceback name the line of the page.
        code = compile("\n" * (example.line - 1) + example.code, str(path), "exec", dont_inherit=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if example.output is not None and printed.getvalue() != example.output:
            wrong.append(
                f"{path.name}, line {example.line}: the page shows\n{example.output}but it prints\n{printed.getvalue()}"
            )
    return wrong
