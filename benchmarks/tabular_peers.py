"""The peers of ``python -m benchmarks tabular``: each makes an estimator that takes a data frame, with its defaults.

``preset="tabular"`` gets the frame as it is. The others get what their documentation asks for: dates as year, month,
weekday and the day's number; texts as pandas' categories for trees and pytabkit; numbers without gaps (medians, and a
0/1 column that says where) for pytabkit; all of that, one-hot and standardized, for plain MLPs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .preset_variants import VARIANTS, Configured


def with_date_parts(X: Any) -> Any:
    """A frame whose dates are numbers: year, month, weekday, days since 1970; and the hour, where one is not 0."""
    X = X.copy()
    for name in X.select_dtypes("datetime").columns:
        date = X.pop(name)
        X[f"{name} year"], X[f"{name} month"] = date.dt.year, date.dt.month
        X[f"{name} weekday"], X[f"{name} day"] = date.dt.weekday, date.dt.normalize().to_numpy("M8[D]").astype(float)
        if (date.dt.hour != 0).any():
            X[f"{name} hour"] = date.dt.hour
    return X


def texts_of(X: Any) -> list[str]:
    """The columns that are not numbers."""
    return list(X.select_dtypes(exclude="number").columns)


class Frames:
    """A peer behind a preparation of the frame that is learnt on the training rows.

    ``filled``: gaps of numbers get the median and a column that says where. ``texts``: what becomes of texts, pandas'
    "category" (in the training rows' categories, others are missing) or "text" ("missing" where missing).
    """

    def __init__(self, make: Callable[[list[str]], Any], *, filled: bool, texts: str = "category") -> None:
        self.make, self.filled, self.texts = make, filled, texts

    def fit(self, X: Any, y: np.ndarray) -> Frames:
        """Learn the preparation and fit the peer."""
        import pandas as pd

        X = with_date_parts(X)
        self.categories = {name: pd.CategoricalDtype(sorted(X[name].dropna().unique())) for name in texts_of(X)}
        numbers = X.drop(columns=list(self.categories))
        self.medians = numbers.median()
        self.gaps = [name for name in numbers if self.filled and numbers[name].isna().any()]
        self.model = self.make(list(self.categories)).fit(self.prepared(X), y)
        return self

    def prepared(self, X: Any) -> Any:
        """The frame as the peer takes it."""
        X = with_date_parts(X)
        where = X[self.gaps].isna().astype(float).add_suffix(" is missing") if self.gaps else None
        if self.filled:
            X[list(self.medians.index)] = X[list(self.medians.index)].fillna(self.medians)
        for name, kind in self.categories.items():
            as_text = X[name].astype(object).where(X[name].notna(), "missing").astype(str)
            X[name] = X[name].astype(kind) if self.texts == "category" else as_text
        return X if where is None else X.join(where)

    def predict(self, X: Any) -> np.ndarray:
        """Values, or labels."""
        return np.asarray(self.model.predict(self.prepared(X))).ravel()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, K)."""
        return np.asarray(self.model.predict_proba(self.prepared(X)))


def _plain(make: Callable[[], Any]) -> Frames:
    """What a user puts before an MLP: numbers standardized, texts one-hot, unknown ones zeros."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def pipeline(texts: list[str]) -> Any:
        one_hot = ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts)
        return make_pipeline(ColumnTransformer([one_hot], remainder=StandardScaler()), make())

    return Frames(pipeline, filled=True, texts="text")


def _preset(classes: bool, **epochs: Any) -> Any:
    from backprop_gpu import estimators

    kind = estimators.MLPClassifier if classes else estimators.MLPRegressor
    return kind(preset="tabular", random_state=0, **epochs)


def _ours(classes: bool, **epochs: Any) -> Any:
    from backprop_gpu import estimators

    kind = estimators.MLPClassifier if classes else estimators.MLPRegressor
    return _plain(lambda: kind(random_state=0, **epochs))


def _sklearn(classes: bool, **epochs: Any) -> Any:
    from sklearn import neural_network

    kind = neural_network.MLPClassifier if classes else neural_network.MLPRegressor
    return _plain(lambda: kind(random_state=0, **epochs))


def _boosting(classes: bool, **epochs: Any) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return Frames(lambda _: kind(random_state=0, **epochs), filled=False)


def _lightgbm(classes: bool, **epochs: Any) -> Any:
    import lightgbm

    kind = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
    trees = {"n_estimators": epochs["max_iter"]} if epochs else {}
    return Frames(lambda _: kind(random_state=0, n_jobs=1, verbose=-1, **trees), filled=False)


def _catboost(classes: bool, **epochs: Any) -> Any:
    import catboost

    kind = catboost.CatBoostClassifier if classes else catboost.CatBoostRegressor
    fixed = {"random_seed": 0, "thread_count": 1, "verbose": False, "allow_writing_files": False}
    trees = {"iterations": epochs["max_iter"]} if epochs else {}
    return Frames(lambda texts: kind(cat_features=texts, **fixed, **trees), filled=False, texts="text")


def _pytabkit(name: str, classes: bool, **epochs: Any) -> Any:
    from pytabkit.models.sklearn import sklearn_interfaces

    kind = getattr(sklearn_interfaces, f"{name}_{'Classifier' if classes else 'Regressor'}")
    limit = {"n_epochs": epochs["max_iter"]} if epochs else {}
    return Frames(lambda _: kind(random_state=0, n_threads=1, device="cpu", **limit), filled=True)


def _realmlp(classes: bool, **epochs: Any) -> Any:
    return _pytabkit("RealMLP_TD", classes, **epochs)


def _tabm(classes: bool, **epochs: Any) -> Any:
    return _pytabkit("TabM_D", classes, **epochs)


def _configured(sections: dict[str, Any], classes: bool, **epochs: Any) -> Any:
    return Configured(classes, sections, **epochs)


PEERS: dict[str, Callable[..., Any]] = {
    "preset": _preset,
    "realmlp": _realmlp,
    "tabm": _tabm,
    "boosting": _boosting,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "sklearn": _sklearn,
    "ours": _ours,
    **{name: partial(_configured, sections) for name, sections in VARIANTS.items()},
}
PACKAGES = {  # the package whose version is said, and the module without which a peer is left out
    "preset": ("backprop-gpu", "backprop_gpu"),
    "ours": ("backprop-gpu", "backprop_gpu"),
    "realmlp": ("pytabkit", "pytabkit"),
    "tabm": ("pytabkit", "pytabkit"),
    "lightgbm": ("lightgbm", "lightgbm"),
    "catboost": ("catboost", "catboost"),
    "boosting": ("scikit-learn", "sklearn"),
    "sklearn": ("scikit-learn", "sklearn"),
    **dict.fromkeys(VARIANTS, ("backprop-gpu", "backprop_gpu")),
}
