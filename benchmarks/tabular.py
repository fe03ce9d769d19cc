"""What ``preset="tabular"`` is worth: scores by 5-fold cross-validation beside plain MLPs and beside trees."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .datasets import Dataset, raw
from .peers import check_names
from .worker_process import WorkerProcess

NAMES = (
    *("breast_cancer", "digits", "iris", "wine", "diabetes"),
    *("moons-200", "friedman-2k", "steps-2k", "teacher-5k"),
)
FOLDS = 5


def _preset(classes: bool, **epochs: Any) -> Any:
    from backprop_gpu import estimators

    return (estimators.MLPClassifier if classes else estimators.MLPRegressor)(
        preset="tabular", random_state=0, **epochs
    )


def _plain(classes: bool, **epochs: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from backprop_gpu import estimators

    kind = estimators.MLPClassifier if classes else estimators.MLPRegressor
    return make_pipeline(StandardScaler(), kind(random_state=0, **epochs))


def _sklearn(classes: bool, **epochs: Any) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), (MLPClassifier if classes else MLPRegressor)(random_state=0, **epochs))


def _boosting(classes: bool, **epochs: Any) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=0, **epochs)


def _forest(classes: bool, **epochs: Any) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    trees = {"n_estimators": epochs["max_iter"]} if epochs else {}
    return (RandomForestClassifier if classes else RandomForestRegressor)(random_state=0, **trees)


# Each with its own defaults; the plain MLPs get standardized columns, as their documentation asks for.
PEERS: dict[str, Callable[..., Any]] = {
    "preset": _preset,
    "ours": _plain,
    "sklearn": _sklearn,
    "boosting": _boosting,
    "forest": _forest,
}


class CrossValidationWorker:
    """One peer at work in its own process."""

    def __init__(self, peer: str) -> None:
        self.make = PEERS[peer]

    def cross_validate(self, dataset: Dataset, limit: dict[str, int]) -> tuple[list[float], list[float]]:
        """(scores, seconds of the fits) on the same folds for everybody, with classes in their shares."""
        from sklearn.model_selection import KFold, StratifiedKFold

        X, y = raw(dataset)
        scores, seconds, kind = [], [], StratifiedKFold if dataset.classes else KFold
        for train, test in kind(FOLDS, shuffle=True, random_state=0).split(X, y):
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that an MLP stopped after as many epochs as it was told to
                model = self.make(dataset.classes > 0, **limit).fit(X[train], y[train])
            seconds.append(time.perf_counter() - start)
            scores.append(float(model.score(X[test], y[test])))
        return scores, seconds


def rows(
    datasets: Sequence[Dataset],
    names: Sequence[str],
    epochs: int | None = None,
    variables: Mapping[str, str | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """A row for each dataset and peer: mean ``score`` (accuracy or R2), its deviation over folds, seconds of a fit.

    ``epochs`` limits epochs and trees, to see that everything runs. Last, a row for each peer: its mean rank.

    Raises
    ------
    ConfigError, DeviceError
        For an unknown peer; if a fit fails.
    """
    check_names(names, PEERS)
    taking_part, limit = list(names or PEERS), {} if epochs is None else {"max_iter": epochs}
    means: list[list[float]] = []
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in taking_part:
            worker = WorkerProcess(".tabular:CrossValidationWorker", name, variables=variables or {})
            workers[name] = stack.enter_context(contextlib.closing(worker))
        for dataset in datasets:
            means.append([])
            for name, worker in workers.items():
                scores, seconds = worker.call("cross_validate", dataset, limit)
                means[-1].append(float(np.mean(scores)))
                figures = {"score": float(np.mean(scores)), "spread": float(np.std(scores)), "folds": scores}
                yield {"workload": dataset.name, "peer": name, **figures, "fit": float(np.median(seconds)), "note": ""}
    for name, rank in zip(taking_part, mean_ranks(np.round(means, 4)), strict=True):
        yield {"workload": "all", "peer": name, "note": f"mean rank {rank:.1f} of {len(taking_part)}"}


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Mean over the datasets (rows) of each peer's rank, 1 for the best; equal scores share theirs."""
    better = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    return np.asarray((better + (equal + 1) / 2.0).mean(axis=0))
