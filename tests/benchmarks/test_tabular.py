"""Cross-validated scores, run for real with few epochs and trees."""

from __future__ import annotations

import numpy as np
import pytest

from backprop_gpu.errors import ConfigError
from benchmarks.datasets import chosen_datasets, raw
from benchmarks.tabular import FOLDS, NAMES, PEERS, mean_ranks, rows


def test_every_peer_is_scored_on_the_same_folds() -> None:
    peers = [name for name in PEERS if name != "boosting"]  # whose threads wait for each other beside other tests
    found = list(rows(chosen_datasets(["iris"], "tabular"), peers, 5))
    assert [row["peer"] for row in found] == [*peers, *peers]
    for row in found[: len(peers)]:
        assert len(row["folds"]) == FOLDS
        assert row["score"] == pytest.approx(np.mean(row["folds"]))
        assert row["score"] > 0.3
    ours, theirs = (next(row for row in found if row["peer"] == name) for name in ("ours", "sklearn"))
    assert ours["folds"] == theirs["folds"]  # the same fits
    ranks = [float(row["note"].split()[2]) for row in found[len(peers) :]]
    assert sum(ranks) == pytest.approx(sum(range(1, len(peers) + 1)))


def test_regression_and_the_names() -> None:
    (forest, _) = rows(chosen_datasets(["diabetes"], "tabular"), ["forest"], 10)
    assert 0.2 < forest["score"] < 0.6
    datasets = chosen_datasets(NAMES, "tabular")
    X, y = raw(next(t for t in datasets if t.name == "steps-2k"))
    assert X.shape == (2_000, 10)
    assert X.min() > 0.0
    assert 0.3 < y.mean() < 0.7
    with pytest.raises(ConfigError, match="did you mean 'boosting'"):
        list(rows(datasets[:1], ["boost"], 1))


def test_equal_scores_share_a_rank() -> None:
    np.testing.assert_array_equal(mean_ranks(np.array([[0.9, 0.8, 0.9, 0.1]])), [1.5, 3.0, 1.5, 4.0])
    np.testing.assert_array_equal(mean_ranks(np.array([[1.0, 2.0], [3.0, 0.0]])), [1.5, 1.5])
