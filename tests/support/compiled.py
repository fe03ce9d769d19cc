"""Every compiled kernel there is."""

from __future__ import annotations

from collections.abc import Iterator

from backprop_gpu.backends.host.compiled import (
    activations,
    averaging,
    crew,
    data,
    dropout,
    layers,
    losses,
    norms,
    recording,
    updates,
)
from backprop_gpu.backends.host.compiled.calling import REALS
from backprop_gpu.backends.host.compiled.native import Native

RULES = ("sgd", "momentum", "momentum_average", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "amsgrad", "lion")


def all_kernels() -> Iterator[Native]:
    """In both floating types, and what plays recorded steps."""
    for dtype in REALS:
        for name in (*activations.FROM_A, *activations.KEEPING):
            for keeps in (False, True) if name in activations.FROM_A else (True,):
                yield layers.dense(dtype, name, keeps)
                yield norms.batch_norm(dtype, name, keeps)
                yield norms.inference(dtype, name, keeps)
        for name in activations.FROM_A:
            yield layers.dense_vjp_input(dtype, name, keeps=False, drops=False)
        for name, drops in (("tanh", False), ("tanh", True), ("relu", True)):
            yield layers.dense_vjp_input(dtype, name, keeps=True, drops=drops)
        for loss in ("categorical_cross_entropy", "grouped_cross_entropy"):
            yield losses.output_delta(dtype, loss, labels=True)
            yield losses.output_delta(dtype, loss, labels=False)
        for loss in ("binary_cross_entropy", "squared_error", "absolute_error", "huber", "poisson", "quantile"):
            yield losses.output_delta(dtype, loss, labels=False)
        for rule in (*RULES, "lion_decaying"):
            yield updates.update(dtype, rule)
        for make in (layers.row_sums, layers.dense_vjp_params, losses.output_sums, norms.batch_norm_vjp, data.advance):
            yield make(dtype)
        for make in (updates.penalty, updates.penalty_value, updates.squares, updates.global_norm):
            yield make(dtype)
        yield dropout.drop(dtype)
        yield averaging.average(dtype)
    for dtype in (*REALS, "int64"):
        yield data.gather(dtype)
    yield from (crew._leader, crew._follower, recording._player)
