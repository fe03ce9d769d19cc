"""Examples under --help, which the parser takes; completion as a shell asks for it."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.command import ROOT, environment

from backprop_gpu import cli
from backprop_gpu.cli_examples import EXAMPLES, _commands

PARSER = cli._parser()
COMMANDS = dict(_commands(PARSER, ""))


def test_every_command_has_examples_that_its_parser_takes() -> None:
    assert set(EXAMPLES) <= set(COMMANDS)
    for words, parser in COMMANDS.items():
        lines = re.findall(r"^ *backprop-gpu (.*?)(?:  .*)?$", parser.format_help(), re.MULTILINE)
        assert lines, f"backprop-gpu {words} --help has no example"
        for line in lines:
            given = shlex.split(line, comments=True)
            given = (
                given[: given.index(">>")] if ">>" in given else given[: given.index(">")] if ">" in given else given
            )
            assert isinstance(PARSER.parse_args(given), argparse.Namespace), line
            assert not words or line.startswith(words.split()[0]), line


@pytest.mark.skipif(find_spec("argcomplete") is None, reason="argcomplete is not installed; pip install argcomplete")
def test_a_shell_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The protocol of argcomplete: the line and the place of the cursor are in the environment."""
    found = {}
    for line in ("backprop-gpu rep", "backprop-gpu train --ver"):
        out = tmp_path / "out"
        asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
        asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(out), "_ARGCOMPLETE_SHELL": "fish"}
        done = subprocess.run(
            [sys.executable, "-m", "backprop_gpu"], env=environment() | asked, cwd=ROOT, check=False, timeout=60
        )
        assert done.returncode == 0
        found[line] = [word.split("\t")[0].strip() for word in out.read_text(encoding="utf-8").split("\n")]
    assert list(found.values()) == [["report"], ["--verify"]]
    for shell, mark in (("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --command backprop-gpu")):
        assert cli.main(["completion", shell]) == 0
        assert mark in capsys.readouterr().out
    assert "_ARGCOMPLETE" not in os.environ
