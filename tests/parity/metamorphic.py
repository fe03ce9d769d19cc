"""Relations between gradients that need no reference: each holds for any device that computes what it says.

In float64, so that two honest ways of computing one number agree to ten digits and more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_gpu.backends.base import Backend
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.step import TrainingStep
from backprop_gpu.parity.trace import trace_step

AGREE = 1e-10

Named = dict[str, np.ndarray]
Relation = Callable[["Subject"], bool]


class Subject:
    """A network with its rows, and how its gradient is taken."""

    def __init__(
        self, net: DenseNet, X: np.ndarray, y: np.ndarray, settings: dict[str, Any], micro: int | None
    ) -> None:
        self.net, self.X, self.y, self.micro = net, X, y[:, None], micro
        self.settings = {k: v for k, v in settings.items() if k not in ("l2",)}

    def step(self, **settings: Any) -> TrainingStep:
        return TrainingStep(self.net, {"name": "sgd", "learning_rate": 1e-3}, **(self.settings | settings))

    def gradient(
        self, X: np.ndarray, y: np.ndarray, w: np.ndarray | None = None, micro: int | None = None, **settings: Any
    ) -> Named:
        """dJ/dtheta by name, and J."""
        step, net = self.step(**settings), self.net
        weights = None if w is None else net.upload_columns(w[:, None])
        step.gradient(net.upload_columns(X), net.upload_columns(y), weights, micro_batch=micro or self.micro)
        return {**net.params.named(net.params.grad.copy()), "J": step.value.copy()}


def agree(a: Named, b: Named) -> bool:
    """To ten digits of the largest entry of each tensor."""
    return all(np.max(np.abs(a[k] - b[k])) <= AGREE * max(np.max(np.abs(b[k])), 1e-30) for k in b)


def micro_batches_add_up(s: Subject) -> bool:
    """The whole batch, and parts of three sizes, give one gradient."""
    m = len(s.X)
    return all(agree(s.gradient(s.X, s.y, micro=part), s.gradient(s.X, s.y, micro=m)) for part in (1, 7, m - 1))


def order_does_not_matter(s: Subject) -> bool:
    """Examples in another order."""
    order = np.random.default_rng(5).permutation(len(s.X))
    return agree(s.gradient(s.X[order], s.y[order]), s.gradient(s.X, s.y))


def twice_the_batch_is_the_same_mean(s: Subject) -> bool:
    """Every example twice."""
    return agree(s.gradient(np.tile(s.X, (2, 1)), np.tile(s.y, (2, 1))), s.gradient(s.X, s.y))


def weight_0_is_silence(s: Subject) -> bool:
    """A huge example of weight 0, last, first or in the middle, is as if it were not there."""
    kept, want = np.ones(len(s.X)), s.gradient(s.X, s.y)
    for at in (0, 11, len(s.X)):
        X, y, w = (np.insert(x, at, v, axis=0) for x, v in ((s.X, 1e6), (s.y, 1), (kept, 0.0)))
        if not agree(s.gradient(X, y, w), want):
            return False
    return True


def early_is_late(s: Subject) -> bool:
    """1/m in dZ[L] or in dW and db."""
    return agree(s.gradient(s.X, s.y, one_over_m="early"), s.gradient(s.X, s.y, one_over_m="late"))


def hidden_units_may_change_places(s: Subject) -> bool:
    """Permuting units of a hidden layer permutes gradients."""
    want, named = s.gradient(s.X, s.y), s.net.parameters()
    for l in (1, 2, 3):
        order = np.random.default_rng(l).permutation(s.net.sizes[l])
        moved = dict(named)
        moved[f"W{l}"], moved[f"b{l}"] = named[f"W{l}"][order], named[f"b{l}"][order]
        moved[f"W{l + 1}"] = named[f"W{l + 1}"][:, order]
        s.net.set_parameters(moved)
        got = s.gradient(s.X, s.y)
        s.net.set_parameters(named)
        back = np.argsort(order)
        got[f"W{l}"], got[f"b{l}"] = got[f"W{l}"][back], got[f"b{l}"][back]
        got[f"W{l + 1}"] = got[f"W{l + 1}"][:, back]
        if not agree(got, want):
            return False
    return True


def db_is_the_row_sum_of_dZ(s: Subject) -> bool:
    """Of what was recorded."""
    net, step = s.net, s.step(one_over_m="early")
    named = net.parameters()
    trace = trace_step(step, net.upload_columns(s.X), net.upload_columns(s.y))
    net.set_parameters(named)
    pairs = [(c.wrote["dZ_prev"], c.wrote["db_prev"]) for c in trace.calls if c.name == "dense_vjp_input"]
    return all(agree({"db": db}, {"db": dZ.sum(axis=1, keepdims=True)}) for dZ, db in pairs)


def the_cost_falls(s: Subject) -> bool:
    """After a short step."""
    step, named = s.step(), s.net.parameters()
    X, y = s.net.upload_columns(s.X), s.net.upload_columns(s.y)
    costs = []
    for _ in range(3):
        step(X, y, micro_batch=s.micro)
        costs.append(step.cost())
    s.net.set_parameters(named)
    return costs[0] > costs[1] > costs[2]


RELATIONS: tuple[Relation, ...] = (
    micro_batches_add_up,
    order_does_not_matter,
    twice_the_batch_is_the_same_mean,
    weight_0_is_silence,
    early_is_late,
    hidden_units_may_change_places,
    db_is_the_row_sum_of_dZ,
    the_cost_falls,
)


def broken(plan: Any, device: Backend | str) -> list[str]:
    """Names of the relations that do not hold."""
    X, y = plan.rows()
    net = plan.net(device, "float64")
    # Dropout draws other masks for other positions in the batch: most relations are about networks without it.
    relations = [r for r in RELATIONS if not any(plan.dropout) or r is db_is_the_row_sum_of_dZ]
    subject = Subject(net, X, y, plan.settings, plan.micro_batch)
    return [r.__name__ for r in relations if not r(subject)]
