"""Training runs that take a moment, from Python."""

from __future__ import annotations

import json
from typing import Any

from backprop_gpu.build import Outcome, train
from backprop_gpu.config import Config, validate


def quick(**sections: Any) -> Config:
    """A configuration that trains in a moment."""
    data: dict[str, Any] = {"name": "quick", "device": "cpu", "model": {"hidden": [6]}, "training": {"epochs": 3}}
    for key, value in sections.items():
        data[key] = data.get(key, {}) | value if isinstance(value, dict) else value
    return validate(data)


def run(run_dir: str, config: Config | str | None = None, **options: Any) -> Outcome:
    return train(quick() if config is None else config, run_dir=run_dir, progress=False, **options)


def strict_json(text: str) -> Any:
    """As every other JSON reader does, refuse NaN and Infinity."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key != "seconds"}
