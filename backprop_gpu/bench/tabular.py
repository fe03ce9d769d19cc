"""What ``preset="tabular"`` is worth: scores by 5-fold cross-validation beside plain MLPs and beside trees."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, MissingDependencyError, did_you_mean
from .tables import Table, raw

NAMES = (
    *("breast_cancer", "digits", "iris", "wine", "diabetes"),
    *("moons-200", "friedman-2k", "steps-2k", "teacher-5k"),
)
FOLDS = 5


def _preset(classes: bool, **epochs: Any) -> Any:
    from .. import estimators

    return (estimators.MLPClassifier if classes else estimators.MLPRegressor)(
        preset="tabular", random_state=0, **epochs
    )


def _plain(classes: bool, **epochs: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from .. import estimators

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


def rows(tables: Sequence[Table], names: Sequence[str], epochs: int | None = None) -> Iterator[dict[str, Any]]:
    """A row for each table and peer: mean ``score`` (accuracy or R2), its deviation over folds, seconds of a fit.

    ``epochs`` limits epochs and trees, to see that everything runs. Last, a row for each peer: its mean rank.

    Raises
    ------
    ConfigError, MissingDependencyError
        For an unknown peer; without scikit-learn.
    """
    for name in names:
        if name not in PEERS:
            raise ConfigError(f"no peer is called {name!r}{did_you_mean(name, PEERS)}; known: {', '.join(PEERS)}")
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDependencyError("bench tabular needs scikit-learn; pip install 'backprop-gpu[sklearn]'")
    taking_part, limit = list(names or PEERS), {} if epochs is None else {"max_iter": epochs}
    means = []
    for table in tables:
        X, y = raw(table)
        found = {name: _cross_validate(PEERS[name], table.classes > 0, limit, X, y) for name in taking_part}
        means.append([scores.mean() for scores, _ in found.values()])
        for name, (scores, seconds) in found.items():
            figures = {"score": float(scores.mean()), "spread": float(scores.std()), "folds": scores.tolist()}
            yield {"workload": table.name, "peer": name, **figures, "fit": float(np.median(seconds)), "note": ""}
    for name, rank in zip(taking_part, mean_ranks(np.round(means, 4)), strict=True):
        yield {"workload": "all", "peer": name, "note": f"mean rank {rank:.1f} of {len(taking_part)}"}


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Mean over the tables (rows) of each peer's rank, 1 for the best; equal scores share theirs."""
    better = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    return np.asarray((better + (equal + 1) / 2.0).mean(axis=0))


def _cross_validate(
    make: Callable[..., Any], classes: bool, limit: dict[str, int], X: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """(scores, seconds of the fits) on the same folds for everybody, with classes in their shares."""
    from sklearn.model_selection import KFold, StratifiedKFold

    scores, seconds = [], []
    for train, test in (StratifiedKFold if classes else KFold)(FOLDS, shuffle=True, random_state=0).split(X, y):
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an MLP stopped after as many epochs as it was told to
            model = make(classes, **limit).fit(X[train], y[train])
        seconds.append(time.perf_counter() - start)
        scores.append(model.score(X[test], y[test]))
    return np.array(scores), seconds
