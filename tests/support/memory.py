"""The memory that is predicted for a step, from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backprop_gpu.network.plan import MemoryPlan, predict_memory, shape_step

OF_THE_PLAN = ("kernels", "rows", "weighted", "micro_batch", "resident", "evaluated")


def memory_of(
    sizes: Sequence[int], m: int, dtype: str = "float32", optimizer: Any = "adam", step: Any = None, **settings: Any
) -> MemoryPlan:
    """``predict_memory``; the settings that are not its own are the network's."""
    own = {key: settings.pop(key) for key in OF_THE_PLAN if key in settings}
    return predict_memory(shape_step(sizes, dtype, optimizer, step or {}, **settings), m, **own)
