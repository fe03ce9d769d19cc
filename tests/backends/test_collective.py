"""How a batch is cut, and the order in which the ranks' gradients are added."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backprop_gpu import DenseNet, TrainingStep
from backprop_gpu.backends.collective import REDUCTION_BLOCK, SINGLE, Single, launched, spans, sum_in_order
from backprop_gpu.errors import ConfigError
from backprop_gpu.estimators import MLPClassifier
from backprop_gpu.training.ranks import share_fits


@given(st.integers(1, 10_000), st.integers(1, 64), st.booleans())
def test_every_example_is_one_rank_s(m: int, size: int, exact: bool) -> None:
    cut = spans(m, size, exact)
    assert len(cut) == size
    assert [k for first, n in cut for k in range(first, first + n)] == list(range(m))
    if exact:
        assert all(first % REDUCTION_BLOCK == 0 or n == 0 for first, n in cut)
        whole = {n for _, n in cut[:-1] if n} - {m - sum(n for _, n in cut[: sum(n > 0 for _, n in cut) - 1])}
        assert all(n // REDUCTION_BLOCK & (n // REDUCTION_BLOCK - 1) == 0 for n in whole)  # 2^k blocks
    else:
        assert max(n for _, n in cut) - min(n for _, n in cut) <= 1


def test_the_sum_is_a_binary_counter_s() -> None:
    rng = np.random.default_rng(0)
    numbers = [rng.standard_normal(50).astype("f4") for _ in range(7)]
    a, b, c, d, e, f, g = (x.copy() for x in numbers)
    want = ((a + b) + (c + d)) + ((e + f) + g)
    np.testing.assert_array_equal(sum_in_order([x.copy() for x in numbers]), want)
    assert not np.array_equal(sum_in_order([x.copy() for x in numbers]), sum(numbers, np.zeros(50, "f4")))


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_the_parts_of_a_gradient_add_up_to_its_bits(size: int) -> None:
    m = 7 * REDUCTION_BLOCK - 19
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((9, m)).astype("f4"), (rng.random((1, m)) > 0.5).astype("f4")
    net = DenseNet([9, 33, 1], activation="silu", device="cpu", kernels="native", seed=2)
    step = TrainingStep(net)
    step.gradient(X, Y)
    whole = net.params.grad.copy()
    parts = []
    for first, n in spans(m, size, exact=True):
        if n:
            part = slice(first, first + n)
            step.gradient(X[:, part], Y[:, part], np.ones((1, n), "f4"), weights_sum=float(m))
            parts.append(net.params.grad.copy())
    np.testing.assert_array_equal(sum_in_order(parts), whole)


def test_a_single_process_is_rank_0_of_1(monkeypatch: pytest.MonkeyPatch) -> None:
    launched.cache_clear()
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE", raising=False)
    assert launched() is SINGLE
    assert (SINGLE.rank, SINGLE.size) == (0, 1)


def test_what_several_ranks_cannot_train_is_refused() -> None:
    class Two(Single):
        size = 2

    with share_fits(Two()):
        for name, value, why in (
            ("random_state", None, "have to draw the same; give a number"),
            ("solver", "lbfgs", "'lbfgs' fits on one rank"),
            ("preset", "tabular", "'tabular' fits on one rank"),
            ("batch_norm", True, "each rank's own examples"),
        ):
            with pytest.raises(ValueError, match=f"The '{name}' parameter of MLPClassifier is not valid: .*{why}"):
                MLPClassifier([3], **{"random_state": 0, name: value}).fit(np.eye(4), [0, 1, 0, 1])
    net = DenseNet([2, 3, 1], batch_norm=True, device="cpu")
    with pytest.raises(ConfigError, match=r"each rank's own examples: leave it out, or train on one rank"):
        TrainingStep(net, ranks=Two())
