"""What a fit says on standard output with ``verbose``: scikit-learn's own lines."""

from __future__ import annotations


def say(verbose: bool | int, text: str) -> None:
    """Print a line if ``verbose``."""
    if verbose:
        print(text)
