"""``explain``: where the 1/m goes, with the reader's own numbers; ``diagnose``: what is wrong with a gradient."""

from __future__ import annotations

from .diagnosing import diagnose
from .diagnosis import Diagnosis, TensorRatio
from .explaining import explain
from .explanation import Batch, Explanation, Joined
from .mistakes import Mistake

__all__ = ["Batch", "Diagnosis", "Explanation", "Joined", "Mistake", "TensorRatio", "diagnose", "explain"]


def __dir__() -> list[str]:
    return __all__
