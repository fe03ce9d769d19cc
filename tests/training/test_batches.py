"""Mini-batches: every row once an epoch, columns that belong together, buffers that are used again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from backprop_gpu.maths.random import host_generator
from backprop_gpu.network.dense_net import WEIGHT_STREAM, DenseNet
from backprop_gpu.training.batches import BatchBuffers, Batches

DEVICES = ("cpu", "array_api_strict", "array_api_strict:device1")


def numbered(
    n: int,
    batch_size: int,
    *,
    device: str = "cpu",
    classes: bool = False,
    shuffle: bool = True,
    seed: int = 0,
    normalized: bool = False,
) -> Batches:
    """A data set whose numbers tell the row: X = (row, -row), y = 2 row (or row mod 3), weight = row + 1."""
    row = np.arange(n, dtype=np.float64)[:, None]
    y = np.arange(n, dtype=np.int64)[:, None] % 3 if classes else 2.0 * row
    loss, sizes = "categorical_cross_entropy" if classes else "squared_error", [2, 2, 3] if normalized else [2, 3]
    net = DenseNet(sizes, loss=loss, device=device, batch_norm=normalized)
    X = np.hstack([row, -row])
    return Batches(net, X, y, row + 1.0, batch_size=batch_size, shuffle=shuffle, seed=seed)


def epoch_of(batches: Batches, number: int) -> Iterator[tuple[BatchBuffers, float | None]]:
    """The batches of an epoch, each gathered when it is asked for, with its sum of weights."""
    backend = batches.net.backend
    sums = batches.start_epoch(number)
    buffers = {m: BatchBuffers(batches, m) for m in set(batches.sizes)}
    for k, (m, total) in enumerate(zip(batches.sizes, sums, strict=True)):
        buffers[m].gather(backend.asarray([k, 0], "int64"))
        yield buffers[m], total


def rows_of(batches: Batches, epoch: int) -> list[np.ndarray]:
    """The rows of each batch of an epoch, read from X on the device."""
    to_host = batches.net.backend.to_host
    return [to_host(batch.X)[0].astype(int) for batch, _ in epoch_of(batches, epoch)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("n", "batch_size"), [(1, 1), (10, 1), (10, 3), (10, 5), (10, 9), (10, 10), (10, 11), (10, 1000), (257, 32)]
)
def test_every_row_is_used_exactly_once_an_epoch(n: int, batch_size: int, shuffle: bool, device: str) -> None:
    batches = numbered(n, batch_size, shuffle=shuffle, device=device)
    for epoch in range(3):
        parts = rows_of(batches, epoch)
        size = min(batch_size, n)
        tail = [n % size] if n % size else []
        assert [len(p) for p in parts] == [size] * (n // size) + tail
        assert len(batches) == len(parts)
        together = np.concatenate(parts)
        assert sorted(together) == list(range(n))
        np.testing.assert_array_equal(together, batches.permutation(epoch))
        if not shuffle:
            assert list(together) == list(range(n))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"), [(21, 10, [7] * 3), (23, 5, [5, 5, 5, 4, 4]), (13, 4, [4, 3, 3, 3])]
)
def test_batches_of_a_normalized_network_are_even(n: int, batch_size: int, sizes: list[int], device: str) -> None:
    """No batch is a few rows that were left over, and every row is used once all the same."""
    batches = numbered(n, batch_size, device=device, normalized=True)
    for epoch in range(2):
        parts = rows_of(batches, epoch)
        assert [len(p) for p in parts] == batches.sizes == sizes
        np.testing.assert_array_equal(np.concatenate(parts), batches.permutation(epoch))
        for k, part in enumerate(parts):
            np.testing.assert_array_equal(batches.order_of(k), part)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("classes", [False, True])
def test_features_targets_and_weights_stay_together(classes: bool, device: str) -> None:
    batches = numbered(23, 5, classes=classes, device=device)
    to_host = batches.net.backend.to_host
    for batch, total in epoch_of(batches, 2):
        X, Y, weights = to_host(batch.X), to_host(batch.Y), to_host(batch.weights)
        row = X[0]
        assert (X.shape, Y.shape, weights.shape) == ((2, batch.m), (1, batch.m), (1, batch.m))
        assert X.dtype == weights.dtype == np.float32
        assert Y.dtype == (np.int64 if classes else np.float32)
        np.testing.assert_array_equal(X[1], -row)
        np.testing.assert_array_equal(Y[0], row % 3 if classes else 2.0 * row)
        np.testing.assert_array_equal(weights[0], row + 1.0)
        assert total == float(np.sum(row.astype(np.float64) + 1.0))


def test_the_sum_of_weights_is_taken_in_float64() -> None:
    net = DenseNet([1, 1], loss="squared_error", device="cpu")
    one, weights = np.ones((3, 1)), np.array([[1.0], [1e-9], [1e-9]])
    (total,) = Batches(net, one, one, weights, batch_size=3, shuffle=False, seed=0).start_epoch(0)
    assert total == pytest.approx(1.0 + 2e-9, rel=1e-15)  # float32 would say 1


def test_without_weights_there_are_none() -> None:
    net = DenseNet([1, 1], loss="squared_error", device="cpu")
    one = np.ones((3, 1))
    for batch, total in epoch_of(Batches(net, one, one, None, batch_size=2, shuffle=False, seed=0), 0):
        assert batch.weights is None
        assert total is None


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    order = numbered(50, 7).permutation
    assert list(order(0)) != list(order(1)) != list(order(2))
    for same in (numbered(50, 50), numbered(50, 7, device="array_api_strict:device1"), numbered(50, 7, classes=True)):
        for epoch in (3, 0, 1):  # asked in any order, and again
            np.testing.assert_array_equal(same.permutation(epoch), order(epoch))
    assert list(numbered(50, 7, seed=1).permutation(0)) != list(order(0))
    assert list(numbered(50, 7, seed=2**63).permutation(0)) != list(order(0))


def test_orders_are_drawn_evenly() -> None:
    # 6 orders of 3 rows over 6,000 epochs: each count is binomial with mean 1,000 and deviation 28.9; six of those.
    orders = numbered(3, 3, seed=5)
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        key = tuple(orders.permutation(epoch).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert all(abs(count - 1000) < 6 * 28.9 for count in counts.values())


def test_shuffles_do_not_share_their_randomness_with_the_initial_weights() -> None:
    batches = numbered(50, 7, seed=0)
    for number in range(1, 4):  # epochs here, layers there
        of_weights = host_generator(0, WEIGHT_STREAM, number)
        assert list(of_weights.permutation(50)) != list(batches.permutation(number))


def test_each_example_is_contiguous_in_memory() -> None:
    for batch, _ in epoch_of(numbered(10, 4), 0):
        assert batch.X.T.flags.c_contiguous
        assert batch.Y.T.flags.c_contiguous


def test_the_data_set_is_a_copy() -> None:
    net = DenseNet([1, 1], loss="squared_error", device="cpu", dtype="float64")
    X = np.ones((4, 1))
    batches = Batches(net, X, X, X, batch_size=4, shuffle=False, seed=0)
    X[:] = 5.0
    ((batch, _),) = epoch_of(batches, 0)
    np.testing.assert_array_equal(batch.X, np.ones((1, 4)))
    np.testing.assert_array_equal(batch.weights, np.ones((1, 4)))


def test_an_epoch_that_is_left_early_can_be_begun_again() -> None:
    batches = numbered(10, 4)
    first = next(epoch_of(batches, 1))[0].X.copy()
    np.testing.assert_array_equal(next(epoch_of(batches, 1))[0].X, first)
    assert sorted(np.concatenate(rows_of(batches, 1))) == list(range(10))


@pytest.mark.parametrize("device", DEVICES)
def test_chosen_rows_are_the_only_ones_and_lie_where_those_of_others_lie(device: str) -> None:
    whole = numbered(10, 4, device=device)
    chosen = np.array([8, 1, 2, 5, 6])
    row = np.arange(10.0)[:, None]
    some = Batches(
        *(whole.net, np.hstack([row, -row]), 2.0 * row, row + 1.0),
        batch_size=4,
        shuffle=True,
        seed=3,
        chosen=chosen,
        share_with=whole,
    )
    assert (some.n, some.sizes) == (5, [4, 1])
    assert all(a is b for a, b in zip(some.sources, whole.sources, strict=True))
    alone = Batches(
        *(whole.net, np.hstack([row, -row])[chosen], 2.0 * row[chosen], row[chosen] + 1.0),
        batch_size=4,
        shuffle=True,
        seed=3,
    )
    for epoch in range(3):
        for (mine, total), (own, own_total) in zip(epoch_of(some, epoch), epoch_of(alone, epoch), strict=True):
            assert total == own_total
            for a, b in ((mine.X, own.X), (mine.Y, own.Y), (mine.weights, own.weights)):
                np.testing.assert_array_equal(whole.net.backend.to_host(a), whole.net.backend.to_host(b))
    assert len(rows_of(whole, 0)) == 3  # as before
