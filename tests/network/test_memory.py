"""The flat vector, its views and its padding; the buffers of a step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.backends import Case, cases
from support.bench import same_bits

from backprop_gpu.maths.optimizers import OPTIMIZERS
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.memory import ALIGNMENT, FlatParams
from backprop_gpu.network.step import TrainingStep

SIZES = (5, 70, 3, 1, 2)
HOST = Case("numpy", "reference")


def numbered(params: FlatParams) -> dict[str, np.ndarray]:
    """Every parameter a number of its own."""
    named, start = {}, 1
    for name, _, _, shape in params.spans:
        named[name] = np.arange(start, start + math.prod(shape), dtype=params.dtype).reshape(shape)
        start += math.prod(shape)
    return named


def padding(params: FlatParams) -> np.ndarray:
    """Where the vector holds no parameter."""
    free = np.ones(params.theta.shape[0], bool)
    for _, _, offset, shape in params.spans:
        free[offset : offset + math.prod(shape)] = False
    return free


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases())
def test_layout(case: Case, dtype: str) -> None:
    params = FlatParams(case.backend, SIZES, dtype)
    assert [name for name, *_ in params.spans] == ["W4", "W3", "W2", "W1", "b4", "b3", "b2", "b1"]
    end = 0
    for name, l, offset, shape in params.spans:
        assert offset * np.dtype(dtype).itemsize % ALIGNMENT == 0
        assert end <= offset < end + ALIGNMENT // np.dtype(dtype).itemsize  # no overlap, no more padding than needed
        assert shape == (SIZES[l], SIZES[l - 1] if name[0] == "W" else 1)
        end = offset + math.prod(shape)
        if name == "b4":
            assert offset == params.n_weights
    for vector in (params.theta, params.grad):
        assert tuple(vector.shape) == (
            params.spans[-1][2]
            + math.ceil(70 / (ALIGNMENT // np.dtype(dtype).itemsize)) * ALIGNMENT // np.dtype(dtype).itemsize,
        )
        same_bits(case.get(vector), np.zeros(vector.shape, dtype))
    assert params.W[0] is params.b[0] is params.dW[0] is params.db[0] is None


@pytest.mark.parametrize("case", cases())
def test_views_are_the_vectors_memory(case: Case) -> None:
    """Writing to a view writes to the vector, and the other way round."""
    params = FlatParams(case.backend, SIZES, "float32")
    wanted = numbered(params)
    for vector, W, b in ((params.theta, params.W, params.b), (params.grad, params.dW, params.db)):
        for l in range(1, len(SIZES)):
            W[l][...], b[l][...] = case.put(wanted[f"W{l}"]), case.put(wanted[f"b{l}"])
        flat = case.get(vector)
        same_bits(flat, params.flat(wanted))
        assert (flat[padding(params)] == 0.0).all()
        vector[...] = -vector
        for l in range(1, len(SIZES)):
            same_bits(case.get(W[l]), -wanted[f"W{l}"])
            same_bits(case.get(b[l]), -wanted[f"b{l}"])


def test_named_and_flat_are_each_others_inverse() -> None:
    params = FlatParams(HOST.backend, SIZES, "float32")
    wanted = numbered(params)
    flat = params.flat(wanted)
    named = params.named(flat)
    assert list(named) == ["W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4"]
    for name in wanted:
        same_bits(named[name], wanted[name])
    same_bits(params.flat(named), flat)
    assert (flat[~padding(params)] != 0.0).all()
    assert (flat[padding(params)] == 0.0).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", cases())
def test_padding_stays_zero(case: Case, optimizer: str) -> None:
    """In theta, the gradient and every vector, whatever the optimizer, with penalties and clipping."""
    norm = optimizer in ("adam", "lion")
    net = DenseNet((3, 5, 2), loss="squared_error", batch_norm=norm, device=case.backend, kernels=case.kind)
    step = TrainingStep(net, {"name": optimizer, "average": 0.9}, l1=0.1, l2=0.1, clip_norm=0.5)
    rng = np.random.default_rng(0)
    for _ in range(4):
        X, Y = (rng.standard_normal((n, 6)).astype("float32") for n in (3, 2))
        step(case.put(X), case.put(Y), micro_batch=4)
    free = padding(net.params)
    assert free.any()
    for vector in (net.params.theta, net.params.grad, *step.optimizer_state):
        host = case.get(vector)
        assert np.isfinite(host).all()
        same_bits(host[free], np.zeros(free.sum(), "float32"))


@pytest.mark.parametrize("case", cases())
def test_workspace(case: Case) -> None:
    net = DenseNet((3, 5, 4, 2), dropout=[0.5, 0.0], loss="squared_error", device=case.backend, kernels=case.kind)
    ws: Any = net.workspace(7)
    assert ws.m == 7
    assert [tuple(A.shape) for A in ws.A[1:]] == [tuple(dZ.shape) for dZ in ws.dZ[1:]] == [(5, 7), (4, 7), (2, 7)]
    assert [d is not None for d in ws.dropout] == [False, True, False, False]
    predicting: Any = net.workspace(7, train=False)
    assert not any(predicting.dropout)
    assert predicting.dZ == []
