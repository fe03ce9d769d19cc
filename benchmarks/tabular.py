"""What ``preset="tabular"`` is worth: scores by 5-fold cross-validation and CPU time, beside MLPs and trees."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backprop_gpu import __version__
from backprop_gpu.atomic_file import write_file

from .peers import check_names
from .preset_variants import VARIANTS
from .tables import TABLES, TableSpec
from .tabular_peers import PACKAGES, PEERS
from .worker_process import WorkerProcess

FOLDS = 5
SEED = 0  # of the folds; every peer has 0 too
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Fold = dict[str, float]
"""``accuracy``, ``auc`` (of two classes) and ``log_loss``, or ``r2``; and ``cpu``, the seconds of the fit."""


class CrossValidationWorker:
    """One peer at work in its own process, on one thread."""

    def __init__(self, peer: str) -> None:
        self.make = PEERS[peer]

    def fold(self, table: str, number: int, limit: dict[str, int]) -> Fold:
        """The scores of one fold, the same rows for everybody, with classes in their shares."""
        from sklearn.model_selection import KFold, StratifiedKFold

        spec = next(spec for spec in TABLES if spec.name == table)
        X, y = spec.load()
        classes = spec.metric != "r2"
        kind = StratifiedKFold if classes else KFold
        train, test = list(kind(FOLDS, shuffle=True, random_state=SEED).split(X, y))[number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an MLP stopped after as many epochs as it was told to
            start = time.process_time()
            model = self.make(classes, **limit).fit(X.iloc[train], y[train])
            cpu = time.process_time() - start
            return _scores(model, X.iloc[test], y[test], np.unique(y), classes) | {"cpu": cpu}


def _scores(model: Any, X: Any, y: np.ndarray, labels: np.ndarray, classes: bool) -> Fold:
    from sklearn import metrics

    if not classes:
        return {"r2": float(metrics.r2_score(y, model.predict(X)))}
    P = np.asarray(model.predict_proba(X), np.float64)
    found = {"accuracy": float(np.mean(labels[P.argmax(axis=1)] == y))}
    P = np.clip(P, 1e-7, 1.0)
    found["log_loss"] = float(metrics.log_loss(y, P / P.sum(axis=1, keepdims=True), labels=labels))
    return found | ({"auc": float(metrics.roc_auc_score(y, P[:, 1]))} if len(labels) == 2 else {})


class Kept:
    """Results on disk, a file for each peer, so that a peer need not be run again."""

    def __init__(self, folder: str | None, peer: str) -> None:
        self.path = None if folder is None else Path(folder) / f"{peer}.json"
        found = json.loads(self.path.read_text()) if self.path is not None and self.path.is_file() else {}
        self.tables: dict[str, dict[str, Any]] = found.get("tables", {})

    def folds(self, table: str) -> list[Fold]:
        """The folds of a table that are there, from the first on."""
        return list(self.tables.get(table, {}).get("folds", []))

    def keep(self, table: str, folds: list[Fold], version: str) -> None:
        """Write the folds of a table."""
        self.tables[table] = {"version": version, "date": time.strftime("%Y-%m-%d"), "folds": folds}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.path, json.dumps({"tables": self.tables}, indent=1).encode())


def rows(
    specs: Sequence[TableSpec],
    names: Sequence[str],
    epochs: int | None = None,
    variables: Mapping[str, str | None] | None = None,
    kept: str | None = None,
    folds: int = FOLDS,
) -> Iterator[dict[str, Any]]:
    """A row for each table and peer: mean ``score`` by the table's metric, its deviation over folds, seconds of a fit.

    ``epochs`` limits epochs and trees, to see that everything runs. ``kept``: a folder of results; what is there is not
    run again. ``folds``: the first so many of the five, for everybody. Without names, everybody who is installed takes
    part, but for the variants of the preset. Last, a row for each peer: its mean rank, its mean normalized score, its
    CPU time.

    Raises
    ------
    ConfigError, DeviceError
        For an unknown peer; if a fit fails.
    """
    check_names(names, PEERS)
    usual = [name for name in PEERS if name not in VARIANTS and importlib.util.find_spec(PACKAGES[name][1])]
    taking_part = list(names) or usual
    limit = {} if epochs is None else {"max_iter": epochs}
    results = {name: Kept(kept, name) for name in taking_part}
    workers: dict[str, WorkerProcess] = {}
    with contextlib.ExitStack() as stack:
        for spec in specs:
            for name in taking_part:
                done = results[name].folds(spec.name)
                for number in range(len(done), folds):
                    if name not in workers:
                        settings = ONE_THREAD | dict(variables or {})
                        worker = WorkerProcess(".tabular:CrossValidationWorker", name, variables=settings)
                        workers[name] = stack.enter_context(contextlib.closing(worker))
                    done.append(workers[name].call("fold", spec.name, number, limit))
                    results[name].keep(spec.name, done, _version(name))
                yield _row(spec, name, done[:folds])
    of = {name: {s.name: results[name].folds(s.name)[:folds] for s in specs} for name in taking_part}
    yield from summary(specs, of)


def _version(peer: str) -> str:
    package, module = PACKAGES[peer]
    return f"{package} {__version__ if module == 'backprop_gpu' else importlib.metadata.version(package)}"


def _row(spec: TableSpec, peer: str, folds: Sequence[Fold]) -> dict[str, Any]:
    scores = [fold[spec.metric] for fold in folds]
    row = {"workload": spec.name, "peer": peer, "metric": spec.metric, "folds": list(folds), "note": ""}
    cpu = float(np.mean([fold["cpu"] for fold in folds]))
    return row | {"score": float(np.mean(scores)), "spread": float(np.std(scores)), "fit": cpu}


def summary(
    specs: Sequence[TableSpec], results: Mapping[str, Mapping[str, Sequence[Fold]]]
) -> Iterator[dict[str, Any]]:
    """For each peer its mean rank, its mean :func:`normalized` score, and the mean CPU time of a fit."""
    means = np.array([[np.mean([f[s.metric] for f in of[s.name]]) for of in results.values()] for s in specs])
    ranks, scores = mean_ranks(np.round(means, 4)), normalized(means).mean(axis=0)
    for i, (name, of) in enumerate(results.items()):
        cpu = float(np.mean([fold["cpu"] for s in specs for fold in of[s.name]]))
        figures = {"rank": float(ranks[i]), "normalized": float(scores[i]), "cpu": cpu}
        note = (
            f"mean normalized score {scores[i]:.3f}, mean rank {ranks[i]:.1f} of {len(results)}, {cpu:.3g} s CPU a fit"
        )
        yield {"workload": "all", "peer": name, **figures, "note": note}


def normalized(scores: np.ndarray) -> np.ndarray:
    """Scores (tables, peers) with 1 for the best peer of a table and 0 for the worst; all 1 where they are equal."""
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    return np.asarray(np.where(high > low, (scores - low) / np.where(high > low, high - low, 1.0), 1.0))


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Mean over the datasets (rows) of each peer's rank, 1 for the best; equal scores share theirs."""
    better = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    return np.asarray((better + (equal + 1) / 2.0).mean(axis=0))
