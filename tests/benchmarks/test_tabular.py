"""Cross-validated scores, run for real with few epochs and trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backprop_gpu.config import validate
from backprop_gpu.errors import ConfigError
from benchmarks.preset_variants import VARIANTS
from benchmarks.tables import TABLES, TableSpec, categories
from benchmarks.tabular import FOLDS, CrossValidationWorker, Kept, mean_ranks, normalized, rows, summary
from benchmarks.tabular_peers import PEERS


def test_peers_are_scored_on_the_same_folds_and_kept_results_are_not_run_again(tmp_path: Path) -> None:
    here = str(tmp_path)
    tables = [spec for spec in TABLES if spec.name == "diabetes"]
    found = list(rows(tables, ["sklearn", "ours"], 5, kept=here))
    assert [row["peer"] for row in found] == ["sklearn", "ours"] * 2
    for row in found[:2]:
        scores = [fold["r2"] for fold in row["folds"]]
        assert len(scores) == FOLDS
        assert row["score"] == pytest.approx(np.mean(scores))
        assert row["fit"] > 0.0
    assert found[0]["score"] == pytest.approx(found[1]["score"], abs=1e-6)  # the same fits
    kept = Kept(here, "ours")
    kept.keep("diabetes", [{"r2": 0.25, "cpu": 3.0}] * FOLDS, "0")
    again = list(rows(tables, ["sklearn", "ours"], kept=here))
    assert [row["score"] for row in again[:2]] == [found[0]["score"], 0.25]
    assert [row["rank"] for row in again[2:]] == [2.0, 1.0]
    with pytest.raises(ConfigError, match="did you mean 'boosting'"):
        list(rows(tables, ["bosting"], 1))


def test_gaps_texts_and_dates_reach_a_peer() -> None:
    found = CrossValidationWorker("sklearn").fold("mixed-2k", 0, {"max_iter": 1})
    assert sorted(found) == ["accuracy", "cpu", "log_loss"]  # three classes have no single AUC
    assert 0.2 < found["accuracy"] < 1.0


def test_the_tables() -> None:
    assert len(TABLES) >= 20
    assert len(TABLES) == 3 * sum(spec.apart for spec in TABLES)
    X, y = TableSpec("one", categories, "r2").load()
    assert (len(X), X["shop"].nunique(), y.dtype) == (2_000, 40, np.float64)


def test_equal_scores_share_a_rank_and_the_best_of_a_table_is_one() -> None:
    np.testing.assert_array_equal(mean_ranks(np.array([[0.9, 0.8, 0.9, 0.1]])), [1.5, 3.0, 1.5, 4.0])
    np.testing.assert_array_equal(mean_ranks(np.array([[1.0, 2.0], [3.0, 0.0]])), [1.5, 1.5])
    scores = normalized(np.array([[0.5, 1.0, 0.75], [2.0, 2.0, 2.0]]))
    np.testing.assert_array_equal(scores, [[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]])
    spec = TABLES[0]
    one, other = [{"accuracy": 0.9, "cpu": 2.0}], [{"accuracy": 0.8, "cpu": 1.0}]
    best, worst = summary([spec], {"one": {spec.name: one}, "other": {spec.name: other}})
    assert (best["normalized"], worst["normalized"], best["cpu"], worst["rank"]) == (1.0, 0.0, 2.0, 2.0)


def test_the_variants_of_the_preset_train_from_a_file_what_they_say() -> None:
    """Each a configuration that holds; one with texts and dates from its file to probabilities of three classes."""
    X, y = next(spec for spec in TABLES if spec.name == "mixed-2k").load()
    peer = PEERS["preset+scaling"](True, max_iter=1).fit(X[:700], y[:700])
    assert peer.model.net.settings()["input_scaling"]
    assert (peer.model.net.members, peer.model.preprocessor.robust) == (8, True)
    np.testing.assert_allclose(peer.predict_proba(X).sum(axis=1), 1.0, rtol=1e-5)
    for sections in VARIANTS.values():
        assert validate({"preset": "tabular", **sections}).for_rows(1_000).model.members != "auto"
