"""How an error is said on the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from .cli_reading import TAB
from .errors import BackpropError


def one_line(error: Exception) -> str:
    """What went wrong, and what would help, on one line."""
    if isinstance(error, MemoryError):
        cause = f" ({error})" if str(error) else ""
        return f"out of memory{cause}; lower training.batch_size or set training.micro_batch"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else f"cannot write: {error.strerror}"
    return " ".join(str(error).split())


def how_here(error: Exception, words: Sequence[str]) -> str:
    """How the setting that would help is given on this command line."""
    if not isinstance(error, BackpropError) or error.option is None:
        return ""
    key, value = error.option  # a setting of data
    command = next((word for word in words if not word.startswith("-")), "")
    if command not in ("predict", "evaluate", "importance"):
        return f"; here: --set {shlex.quote(f'data.{key}={json.dumps(value, ensure_ascii=False)}')}"
    if key in ("delimiter", "decimal", "unknown", "missing_columns", "extra_columns"):
        return f"; here: --{key.replace('_', '-')} {'tab' if value == TAB else shlex.quote(value)}"
    return ""
