"""Fits of a few steps that have, between them, every optimizer and every feature with a state."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.backends import Case
from support.small_nets import two_moons

from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.training.callbacks import Callback, Epoch
from backprop_gpu.training.early_stopping import EarlyStopping
from backprop_gpu.training.history import History
from backprop_gpu.training.trainer import Trainer

ROWS, STEPS = 45, 3  # with batches of 16: an epoch has three steps, the last of 13 examples
VALIDATION = two_moons(20, seed=1, noise=0.4)

# Every optimizer once, every feature at least once.
RUNS: dict[str, dict[str, Any]] = {
    "sgd": {"schedule": "cosine", "l1": 0.01, "one_over_m": "late"},
    "momentum": {"schedule": "one_cycle", "dropout": 0.3, "weighted": True},
    "nesterov": {"batch_norm": True, "weighted": True, "micro_batch": 7},
    "rmsprop": {"average": 0.9, "validation": VALIDATION, "metrics": ["accuracy"]},
    "adagrad": {"dtype": "float64", "shuffle": False, "delta": "literal"},
    "adam": {"schedule": {"name": "linear_warmup", "warmup": 4}, "dropout": 0.2, "data_on": "host", "clip_norm": 0.5},
    "adamw": {"batch_norm": True, "average": 0.8, "dropout": 0.1, "l2": 0.1, "data_on": "host", "weighted": True},
    "amsgrad": {"validation": VALIDATION, "early_stopping": EarlyStopping(patience=1, min_delta=0.3)},
    "lion": {"validation": VALIDATION, "restore_best": False, "batch_size": 100},
}


class Keep(Callback):
    """The state after every step but an epoch's last, and after every epoch: what a file would hold."""

    every = 1

    def __init__(self) -> None:
        self.states: list[Any] = []
        self.trainer: Trainer | None = None

    def on_steps(self, step: int) -> None:
        assert self.trainer is not None
        self.states.append(self.trainer.state_dict())
        assert self.states[-1]["step"]["t"] == step

    def on_epoch(self, epoch: Epoch) -> None:
        self.on_steps(epoch.step)


def trainer_of(case: Case, name: str, **changes: Any) -> tuple[Trainer, dict[str, Any]]:
    """A trainer of a run in ``RUNS``, and what its fit takes."""
    s = RUNS[name] | changes
    network = {key: s.pop(key) for key in ("dropout", "batch_norm", "dtype") if key in s}
    X, y = two_moons(ROWS, seed=0, noise=0.4)
    given: dict[str, Any] = {"X": X, "y": y, "validation": s.pop("validation", None)}
    given["sample_weight"] = np.random.default_rng(2).uniform(0.5, 2.0, ROWS) if s.pop("weighted", False) else None
    net = DenseNet([2, 6, 5, 1], activation="tanh", device=case.backend, kernels=case.kind, seed=5, **network)
    optimizer = {"name": name, "learning_rate": 0.03, "average": s.pop("average", 0.0)}
    keep = Keep()
    settings = {"epochs": 3, "batch_size": 16, "progress": False, "optimizer": optimizer, "callbacks": [keep]} | s
    keep.trainer = Trainer(net, **settings)
    return keep.trainer, given


def spoilt(trainer: Trainer) -> Trainer:
    """With weights that are not those of the start: none of them may matter."""
    net = trainer.net
    net.set_parameters({name: np.full(x.shape, 0.123) for name, x in net.parameters().items()})
    return trainer


def tree(state: Any) -> Any:
    """For comparing: arrays as bytes with dtype and shape; without the clock."""
    if isinstance(state, dict):
        return {key: tree(value) for key, value in state.items() if key != "seconds"}
    if isinstance(state, list):
        return [tree(value) for value in state]
    return (str(state.dtype), state.shape, state.tobytes()) if isinstance(state, np.ndarray) else state


def end_of(trainer: Trainer, history: History) -> Any:
    """All that a fit leaves."""
    told = [(e.epoch, e.step, e.cost, e.learning_rate, e.validation) for e in history.epochs]
    return tree(trainer.step.state_dict()), told, history.best_epoch, history.stopped, history.notes
