"""Training on rows that are read from files: the bits of rows in memory, in bounded memory, from any batch on."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_gpu.backends.collective import SINGLE
from backprop_gpu.data import row_files
from backprop_gpu.data.row_files import open_rows
from backprop_gpu.errors import DataError, ShapeError
from backprop_gpu.maths import permutation
from backprop_gpu.network.dense_net import DenseNet
from backprop_gpu.network.row_source import RowSource
from backprop_gpu.training.batches import Batches
from backprop_gpu.training.callbacks import Callback, Progress
from backprop_gpu.training.source_batches import Prefetch, SourceBatches
from backprop_gpu.training.trainer import Trainer


@pytest.fixture(params=["stored", "keyed"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch's order: one that is stored, or one that is computed part by part."""
    if request.param == "keyed":
        monkeypatch.setattr(permutation, "MOST_STORED", 10)
        monkeypatch.setattr(row_files, "LOADED_BYTES", 0)


def saved(folder: Path, X: np.ndarray, y: np.ndarray) -> tuple[RowSource, RowSource]:
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return open_rows(folder / "X.npy"), open_rows(folder / "y.npy")


def table(n: int = 331, classes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    return X, rng.integers(0, 3, n) if classes else rng.normal(size=(n, 2))


def fitted(X: Any, y: Any, *, classes: bool = True, kernels: str = "auto", resume: Any = None, **settings: Any) -> Any:
    loss, outputs = ("categorical_cross_entropy", 3) if classes else ("squared_error", 2)
    net = DenseNet([4, 9, outputs], loss=loss, dropout=0.2, device="cpu", kernels=kernels)
    weights = settings.pop("sample_weight", None)
    given = {"epochs": 3, "batch_size": 16, "progress": False} | settings
    history = Trainer(net, **given).fit(X, y, sample_weight=weights, resume=resume)
    return net.params.theta.tobytes(), [epoch.cost for epoch in history.epochs]


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("kernels", ["reference", "auto"])
@pytest.mark.parametrize("classes", [True, False])
def test_the_bits_are_those_of_rows_in_memory(tmp_path: Path, kernels: str, classes: bool) -> None:
    X, y = table(classes=classes)
    there = saved(tmp_path, X, y)
    weights = np.random.default_rng(4).integers(0, 3, len(X)) + 0.5
    others = [{"shuffle": False, "micro_batch": 7}, {"sample_weight": weights, "batch_size": 1000}]
    for more in ({"epochs": 2}, *(others if kernels == "auto" else ())):
        same = {"classes": classes, "kernels": kernels, **more}
        assert fitted(*there, **same) == fitted(X, y, **same)
    assert fitted(X, there[1], classes=classes) == fitted(there[0], y, classes=classes)


class Keep(Callback):
    """Keeps the state of the fit at each step."""

    every = 1

    def __init__(self) -> None:
        self.states: dict[int, Any] = {}

    def on_steps(self, step: int) -> None:
        assert self.trainer is not None
        self.states[step] = self.trainer.state_dict()


@pytest.mark.usefixtures("order")
def test_a_fit_goes_on_in_the_middle_of_an_epoch_to_the_same_bits(tmp_path: Path) -> None:
    X, y = table()
    there, keep = saved(tmp_path, X, y), Keep()
    end = fitted(*there, callbacks=[keep])
    for step in (1, 20, 22, 62):  # 21 are an epoch
        state = keep.states[step]
        assert len(repr((state["batches"]["seed"], state["batches"]["epoch"], state["batches"]["batch"]))) < 100
        assert fitted(*there, resume=state) == end
        assert fitted(X, y, resume=state) == end  # wherever the rows are


@pytest.mark.usefixtures("order")
def test_each_rank_reads_its_part_of_each_batch(tmp_path: Path) -> None:
    X, y = table(100)
    X, y = saved(tmp_path, X, y)  # type: ignore[assignment]
    net = DenseNet([4, 3], loss="categorical_cross_entropy", device="cpu")

    def parts(rank: int, size: int) -> list[np.ndarray]:
        ranks: Any = type("Ranks", (type(SINGLE),), {"rank": rank, "size": size})()
        batches = SourceBatches(net, X, y, None, batch_size=16, shuffle=True, seed=5, ranks=ranks)
        batches.start_epoch(2)
        return [batches.order_of(k) for k in range(len(batches))]

    for of_one, of_three in zip(parts(0, 1), zip(*(parts(rank, 3) for rank in range(3)), strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(of_three), of_one)
    resident = Batches(net, X[:], y[:], None, batch_size=16, shuffle=True, seed=5)
    np.testing.assert_array_equal(np.concatenate(parts(0, 1)), resident.permutation(2))


def test_threads_read_so_many_batches_ahead_and_no_more() -> None:
    started, lock, go = list[int](), threading.Lock(), threading.Event()

    def read(k: int) -> list[np.ndarray]:
        with lock:
            started.append(k)
        assert go.wait(10)
        return [np.full(1, k)]

    prefetch = Prefetch(read, 3)
    go.set()
    assert [prefetch.take(k, 6)[0][0] for k in range(6)] == list(range(6))
    assert sorted(started) == list(range(6))
    started.clear()
    assert prefetch.take(2, 100)[0][0] == 2
    assert set(started) <= {2, 3, 4, 5}
    assert prefetch.take(1, 100)[0][0] == 1  # steps that are run once more
    assert prefetch.take(2, 100)[0][0] == 2
    assert prefetch.waited > 0.0


def test_a_row_that_cannot_be_used_is_named_when_it_is_read(tmp_path: Path) -> None:
    X, y = table()
    X[77, 2], y[78] = np.nan, 3
    there = saved(tmp_path, X, y)
    with pytest.raises(DataError, match=r"^row 77 of X: X has nan at row 0, column 2"):
        fitted(there[0], np.zeros(331))
    with pytest.raises(DataError, match=r"^row 78 of y: y must be a class label from 0 to 2, got \[3\]"):
        fitted(np.zeros((331, 4)), there[1])
    with pytest.raises(ShapeError, match="a row for each of the 330 of X, got 331"):
        fitted(np.zeros((330, 4)), there[1])
    with pytest.raises(DataError, match="row 5 has weight 0"):
        fitted(*saved(tmp_path, *table()), sample_weight=np.where(np.arange(331) == 5, 0.0, 1.0))
    with pytest.raises(DataError, match="class_weight needs X and y in memory"):
        fitted(*saved(tmp_path, *table()), class_weight="balanced")


def test_a_network_predicts_and_scores_block_by_block(tmp_path: Path) -> None:
    X, y = table(5000)
    there, _ = saved(tmp_path, X, y)
    net = DenseNet([4, 3], loss="categorical_cross_entropy", device="cpu")
    np.testing.assert_array_equal(net.predict_proba(there), net.predict_proba(X))
    assert net.cost(there, y) == net.cost(X, y)


def test_progress_says_rows_a_second_and_what_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = table(500)
    there, slow = saved(tmp_path, X, y), threading.Event()

    class Slow(RowSource):
        shape, dtype = there[0].shape, there[0].dtype

        def take(self, rows: np.ndarray) -> np.ndarray:
            slow.wait(0.01)
            return there[0].take(rows)

    for source, waits in ((there[0], "rows wait for training"), (Slow(), "training waits for rows")):
        net = DenseNet([4, 9, 3], loss="categorical_cross_entropy", device="cpu")
        trainer = Trainer(net, epochs=2, batch_size=50)
        trainer.callbacks = [Progress(interval=0.0)]
        trainer.fit(source, there[1])
        lines = capsys.readouterr().err.splitlines()
        assert re.match(r"epoch 1/2  batch \d+/10  [\d,]+ rows/s, (rows|training) wait", lines[0])
        assert any(re.match(r"epoch 2/2  cost .*  [\d,]+ rows/s, ", line) for line in lines)
        assert any(waits in line for line in lines)
