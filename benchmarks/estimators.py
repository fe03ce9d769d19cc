"""Whole fits of our MLPClassifier and MLPRegressor beside scikit-learn's: same settings, same scores verified first."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backprop_gpu.errors import DeviceError, MissingDependencyError

from .commits import PREFIX, commit_peer
from .datasets import Dataset, load
from .interleaved import interleave, summary
from .peers import check_names
from .peers.spec import PeerSpec
from .worker_process import WorkerProcess

_OURS = "backprop_gpu.estimators"
PEERS = (  # ours first: the first is what the others are compared with
    PeerSpec("ours", _OURS),
    PeerSpec("ours-float32", _OURS, {"dtype": "float32"}),
    PeerSpec("sklearn", "sklearn.neural_network"),
)
REFERENCE = "sklearn"
TEST_SHARE, APART, ROWS_APART = 0.2, 0.01, 2
REST = 0.1  # seconds; see ``measure``


class EstimatorWorker:
    """One peer at work in its own process: fits a dataset's training rows, and scores the others."""

    def __init__(self, spec: PeerSpec) -> None:
        self.home, self.settings = spec.load_module(), spec.options

    def prepare(self, dataset: Dataset, epochs: int | None) -> dict[str, Any]:
        """Read or draw the dataset and fit once: ``score`` (accuracy or R2) on the test rows, ``epochs``, ``rows``."""
        X, y = load(dataset)
        n = len(X) - round(TEST_SHARE * len(X))
        self.X, self.y = X[:n], y[:n]
        self.dataset, self.max_iter = dataset, min(epochs or dataset.epochs, dataset.epochs)
        model = self._fit()
        return {"score": float(model.score(X[n:], y[n:])), "epochs": int(model.n_iter_), "rows": len(X) - n}

    def measure(self, min_time: float) -> float:
        """Seconds that a fit takes, the mean over ``min_time`` seconds."""
        done, spent = 0, 0.0
        while not done or spent < min_time:
            start = time.perf_counter()
            self._fit()
            spent += time.perf_counter() - start
            done += 1
        return spent / done

    def _fit(self) -> Any:
        """A fit of a new estimator, as every user's first one."""
        kind = self.home.MLPClassifier if self.dataset.classes else self.home.MLPRegressor
        given = {"hidden_layer_sizes": self.dataset.hidden, "max_iter": self.max_iter, "random_state": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped after as many epochs as it was told to
            return kind(**given, **self.dataset.settings, **self.settings).fit(self.X, self.y)


def chosen(names: Sequence[str]) -> list[PeerSpec]:
    """The peers of these names (all, if none is given) and scikit-learn, whose scores the others must have."""
    own = [name for name in names if not name.startswith(PREFIX)]
    check_names(own, [spec.name for spec in PEERS])
    found = [spec for spec in PEERS if not names or spec.name in own or spec.name == REFERENCE]
    return [*found, *(commit_peer(name, estimators=True) for name in names if name.startswith(PREFIX))]


def rows(
    datasets: Sequence[Dataset],
    names: Sequence[str],
    repeats: int,
    min_time: float,
    epochs: int | None = None,
    variables: Mapping[str, str | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """One row for each dataset and peer, and one for all datasets: how many times as long as ours each peer takes.

    Raises
    ------
    ConfigError
        For an unknown peer or commit.
    """
    specs, ratios, workers = chosen(names), dict[str, list[float]](), dict[str, WorkerProcess]()
    with contextlib.ExitStack() as stack:
        for spec in specs:
            given = {**(variables or {}), **spec.variables}
            try:
                worker = WorkerProcess(".estimators:EstimatorWorker", spec, variables=given, path=spec.path)
            except (DeviceError, MissingDependencyError) as error:
                yield {"workload": "all", "peer": spec.name, "note": str(error)}
                continue
            workers[spec.name] = stack.enter_context(contextlib.closing(worker))
        for dataset in datasets:
            for row in _dataset_rows(dataset, workers, repeats, min_time, epochs):
                ratios.setdefault(row["peer"], []).extend([row["ratio"]] if "ratio" in row else [])
                yield row
    for name, found in ratios.items():
        if found and name != specs[0].name:
            note = f"median of {len(found)} datasets; least {min(found):.2f}, most {max(found):.2f}"
            yield {"workload": "all", "peer": name, "ratio": float(np.median(found)), "note": note}


def _dataset_rows(
    dataset: Dataset, workers: dict[str, WorkerProcess], repeats: int, min_time: float, epochs: int | None
) -> Iterator[dict[str, Any]]:
    reached: dict[str, dict[str, Any]] = {}
    for name, worker in workers.items():
        try:
            reached[name] = worker.call("prepare", dataset, epochs)
        except DeviceError as error:
            yield {"workload": dataset.name, "peer": name, "note": f"failed: {error}"}
    reference, ready = reached.get(REFERENCE), []
    for name, own in reached.items():
        note = None if reference is None else unequal(own, reference, dataset.classes > 0)
        if note is None:
            ready.append(name)
        else:
            yield {"workload": dataset.name, "peer": name, "note": note, **_reported(own)}
    if ready:
        seconds = interleave(ready, repeats, lambda name: float(workers[name].call("measure", min_time)), rest=REST)
    for name in ready:
        figures = summary(seconds[name], seconds[ready[0]]) | {"base": ready[0]}
        yield {"workload": dataset.name, "peer": name, **figures, **_reported(reached[name]), "note": ""}


def _reported(reached: dict[str, Any]) -> dict[str, Any]:
    return {"score": reached["score"], "epochs": reached["epochs"]}


def unequal(own: dict[str, Any], reference: dict[str, Any], classes: bool) -> str | None:
    """Why a fit is not scikit-learn's: its score is more than 0.01 away, and for classes more than 2 test rows."""
    allowed = APART + (ROWS_APART / own["rows"] if classes else 0.0)
    away = abs(own["score"] - reference["score"])
    if away <= allowed:
        return None
    scores = f"score {own['score']:.4f}, scikit-learn's {reference['score']:.4f}"
    return f"not equal work: {scores}, within {allowed:.3f} wanted"
