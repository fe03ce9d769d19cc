"""Fits beside scikit-learn's, run for real; datasets that are what they are said to be; unequal work left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_gpu.errors import ConfigError
from benchmarks import command, estimators, scaling, tabular
from benchmarks.datasets import DATASETS, QUICK, chosen_datasets, load
from benchmarks.estimators import EstimatorWorker, _dataset_rows, unequal
from benchmarks.measure import UNSET


def run(*arguments: str) -> int:
    return command.run(command.parser().parse_args(arguments))


def test_quick_fits_beside_scikit_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    assert run("estimators", "--quick", "--peers", "ours", "--json", str(file), "--markdown") == 0
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["workload"], row["peer"]) for row in rows] == [
        *((name, peer) for name in QUICK for peer in ("ours", "sklearn")),
        ("all", "sklearn"),
    ]
    for ours, theirs in zip(rows[:-1:2], rows[1::2], strict=True):
        assert ours["epochs"] == theirs["epochs"] == 20
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-9)
        assert theirs["ratio"] == theirs["median"] / ours["median"] > 0.0
    assert rows[-1]["ratio"] == np.median([row["ratio"] for row in rows[1:-1:2]])
    assert "| diabetes | sklearn |" in capsys.readouterr().out


class InThisProcess:
    """What a WorkerProcess is asked, answered here."""

    def __init__(self, worker: EstimatorWorker) -> None:
        self.worker = worker

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self.worker, method)(*arguments)


class Lazy(EstimatorWorker):
    """Sees the rows once."""

    def prepare(self, dataset: Any, epochs: int | None) -> dict[str, Any]:
        return super().prepare(dataset, 1)


def test_a_fit_with_another_score_is_left_out() -> None:
    (dataset,) = chosen_datasets(["wine"])
    ours, _, sklearn = estimators.PEERS
    workers: Any = {"ours": InThisProcess(Lazy(ours)), "sklearn": InThisProcess(EstimatorWorker(sklearn))}
    lazy, reference = _dataset_rows(dataset, workers, 1, 0.0, 60)
    assert (lazy["peer"], reference["peer"]) == ("ours", "sklearn")
    assert lazy["note"].startswith("not equal work: score 0.")
    assert "median" not in lazy
    assert reference["median"] > 0.0


def test_scores_are_equal_within_a_hundredth_and_two_rows() -> None:
    own, reference = {"score": 0.90, "rows": 50}, {"score": 0.945, "rows": 50}
    assert unequal(own, reference, classes=True) is None
    assert unequal(own, {"score": 0.955, "rows": 50}, classes=True) is not None
    assert unequal(own, reference, classes=False) is not None
    assert unequal(own, {"score": float("nan")}, classes=False) is not None


def test_five_tables_come_along_and_seven_are_drawn() -> None:
    drawn = [dataset for dataset in DATASETS if dataset.rows]
    assert (len(DATASETS), len(drawn)) == (12, 7)
    assert (min(t.rows for t in drawn), max(t.rows for t in drawn)) == (200, 1_000_000)
    assert any(not dataset.classes for dataset in drawn)
    with pytest.raises(ConfigError, match=r"no workload of estimators is called 'irs' .did you mean 'iris'"):
        chosen_datasets(["irs"])
    with pytest.raises(ConfigError, match=r"no peer is called 'sklern'.*did you mean 'sklearn'"):
        run("estimators", "--quick", "--peers", "sklern")


@pytest.mark.parametrize("dataset", [t for t in DATASETS if t.rows <= 5_000], ids=lambda t: t.name)
def test_a_table_is_what_it_says(dataset: Any) -> None:
    X, y = load(dataset)
    assert len(X) == len(y) == (dataset.rows or len(X))
    assert X.shape[1] == (dataset.features or X.shape[1])
    np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=0.1)
    assert len(np.unique(y)) == dataset.classes if dataset.classes else y.dtype.kind == "f"
    again = load(dataset)
    np.testing.assert_array_equal(X, again[0])
    np.testing.assert_array_equal(y, again[1])


@pytest.mark.parametrize(("given", "passed"), [((), {}), (("--unset-openblas",), UNSET)])
@pytest.mark.parametrize("kind", ["estimators", "tabular", "scaling"])
def test_variables_reach_the_processes(
    kind: str, given: tuple[str, ...], passed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(home: str, *arguments: Any, variables: Any, path: str = "") -> Any:
        raise ConfigError(f"variables {sorted(variables)}")

    for module in (estimators, tabular, scaling):
        monkeypatch.setattr(module, "WorkerProcess", started)
    wanted = sorted({*passed, *(tabular.ONE_THREAD if kind == "tabular" else ())})
    with pytest.raises(ConfigError, match=re.escape(f"variables {wanted}")):
        run(kind, "--quick", *given)
