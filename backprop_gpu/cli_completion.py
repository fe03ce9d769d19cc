"""``backprop-gpu completion``: what makes a shell complete commands, options and files, by argcomplete."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
WHERE = """\
examples:
  backprop-gpu completion bash >> ~/.bashrc
  backprop-gpu completion zsh >> ~/.zshrc
  backprop-gpu completion fish > ~/.config/fish/completions/backprop-gpu.fish
"""


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``completion`` its options."""
    parser.epilog, parser.formatter_class = WHERE, argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(command=_completion)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, and end the process, if it was the shell that started it to complete a line."""
    if "_ARGCOMPLETE" in os.environ:
        _argcomplete().autocomplete(parser)


def _completion(options: argparse.Namespace) -> int:
    print(_argcomplete().shellcode(["backprop-gpu"], shell=options.shell))
    return 0


def _argcomplete() -> Any:
    try:
        import argcomplete
    except ImportError:
        raise ConfigError("completion needs argcomplete: pip install argcomplete") from None
    return argcomplete
