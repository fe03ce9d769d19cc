"""Run the examples of a Markdown page: each ```python block in order, against the ```text block that follows it.

Where that is asked for, the commands of ```console blocks run too, in the same order.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backprop_gpu import cli

_FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<body>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block, the line its code starts on, and the output that the page shows (None: none is shown)."""

    code: str
    line: int
    output: str | None
    language: str = "python"


def examples(text: str, languages: tuple[str, ...] = ("python",)) -> list[Example]:
    """The page's blocks of these languages; a ```text block belongs to the one above, only blank lines apart."""
    fences = list(_FENCE.finditer(text))
    found = []
    for i, fence in enumerate(fences):
        if fence["language"] not in languages:
            continue
        output = None
        if i + 1 < len(fences):
            following = fences[i + 1]
            if following["language"] == "text" and not text[fence.end() : following.start()].strip():
                output = following["body"]
        found.append(Example(fence["body"], text.count("\n", 0, fence.start("body")) + 1, output, fence["language"]))
    return found


def blocks(text: str, language: str) -> list[str]:
    """What the page's blocks of a language hold."""
    return [fence["body"] for fence in _FENCE.finditer(text) if fence["language"] == language]


def run_commands(block: str) -> None:
    """Run the lines of a console block that begin with ``$ backprop-gpu``; each must end with 0."""
    for line in block.splitlines():
        if line.startswith("$ "):
            command, *words = shlex.split(line[2:], comments=True)
            assert command == "backprop-gpu", f"{line!r} is no command of this package: use ```shell"
            assert cli.main(words) == 0, line


def run_page(path: Path, each_alone: bool = False, commands: bool = False) -> list[str]:
    """Run a page's examples; return one message for each whose output is not what the page shows.

    ``each_alone``: not one after the other in one namespace, but each in a new one, as by who copies one of them.
    ``commands``: the console blocks are run too, in this process.
    """
    namespace: dict[str, Any] = {"__name__": path.stem}
    wrong = []
    for example in examples(path.read_text(encoding="utf-8"), ("python", "console") if commands else ("python",)):
        if example.language == "console":
            run_commands(example.code)
            continue
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
