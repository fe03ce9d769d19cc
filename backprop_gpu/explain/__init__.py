"""``explain``: where the 1/m goes, with the reader's own numbers."""

from __future__ import annotations

from .explaining import explain
from .explanation import Batch, Explanation, Joined

__all__ = ["Batch", "Explanation", "Joined", "explain"]


def __dir__() -> list[str]:
    return __all__
