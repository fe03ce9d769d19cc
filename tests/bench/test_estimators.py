"""Fits beside scikit-learn's, run for real; tables that are what they are said to be; unequal work left out."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_gpu.bench import growth, process
from backprop_gpu.bench.command import add_bench, run_bench
from backprop_gpu.bench.estimators import Desk, _table_rows, unequal
from backprop_gpu.bench.measure import UNSET
from backprop_gpu.bench.tables import QUICK, TABLES, chosen_tables, load
from backprop_gpu.errors import ConfigError


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_bench(parser)
    return run_bench(parser.parse_args(arguments))


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
    """What a Worker is asked, answered here."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self.desk, method)(*arguments)


class Lazy(Desk):
    """Sees the rows once."""

    def prepare(self, table: Any, epochs: int | None) -> dict[str, Any]:
        return super().prepare(table, 1)


def test_a_fit_with_another_score_is_left_out() -> None:
    (table,) = chosen_tables(["wine"], "estimators")
    workers: Any = {"ours": InThisProcess(Lazy("ours")), "sklearn": InThisProcess(Desk("sklearn"))}
    lazy, judge = _table_rows(table, workers, 1, 0.0, 60)
    assert (lazy["peer"], judge["peer"]) == ("ours", "sklearn")
    assert lazy["note"].startswith("not equal work: score 0.")
    assert "median" not in lazy
    assert judge["median"] > 0.0


def test_scores_are_equal_within_a_hundredth_and_two_rows() -> None:
    own, judge = {"score": 0.90, "rows": 50}, {"score": 0.945, "rows": 50}
    assert unequal(own, judge, classes=True) is None
    assert unequal(own, {"score": 0.955, "rows": 50}, classes=True) is not None
    assert unequal(own, judge, classes=False) is not None
    assert unequal(own, {"score": float("nan")}, classes=False) is not None


def test_five_tables_come_along_and_seven_are_drawn() -> None:
    drawn = [table for table in TABLES if table.rows]
    assert (len(TABLES), len(drawn)) == (12, 7)
    assert (min(t.rows for t in drawn), max(t.rows for t in drawn)) == (200, 1_000_000)
    assert any(not table.classes for table in drawn)
    with pytest.raises(ConfigError, match=r"no workload 'irs' .did you mean 'iris'"):
        chosen_tables(["irs"], "estimators")
    with pytest.raises(ConfigError, match=r"no peer is called 'sklern'.*did you mean 'sklearn'"):
        run("estimators", "--quick", "--peers", "sklern")


@pytest.mark.parametrize("table", [t for t in TABLES if t.rows <= 5_000], ids=lambda t: t.name)
def test_a_table_is_what_it_says(table: Any) -> None:
    X, y = load(table)
    assert len(X) == len(y) == (table.rows or len(X))
    assert X.shape[1] == (table.features or X.shape[1])
    np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=0.1)
    assert len(np.unique(y)) == table.classes if table.classes else y.dtype.kind == "f"
    again = load(table)
    np.testing.assert_array_equal(X, again[0])
    np.testing.assert_array_equal(y, again[1])


@pytest.mark.parametrize(("given", "passed"), [((), {}), (("--unset-openblas",), UNSET)])
@pytest.mark.parametrize("kind", ["estimators", "tabular", "growth"])
def test_variables_reach_the_processes(
    kind: str, given: tuple[str, ...], passed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(home: str, *arguments: Any, variables: Any) -> Any:
        raise ConfigError(f"variables {sorted(variables)}")

    monkeypatch.setattr(process, "Worker", started)
    monkeypatch.setattr(growth, "Worker", started)
    with pytest.raises(ConfigError, match=re.escape(f"variables {sorted(passed)}")):
        run(kind, "--quick", *given)
