"""Cross-validation of a run: a network for each fold, trained on the other rows and scored on the fold's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import Config
from .errors import DataError
from .rows import Parts, read_folds
from .run_fit import encoded, fit

if TYPE_CHECKING:
    from .build import Experiment


def check_folds(config: Config, prepare: Callable[[Config, Parts], Experiment]) -> None:
    """Encode the rows of every fold, so that what is wrong with one is found before hours of training.

    Raises
    ------
    DataError
        For a fold whose training rows lack a class, or a category that may not be unknown.
    """
    for number, parts in enumerate(read_folds(config), start=1):
        try:
            encoded(prepare(config, parts))
        except DataError as error:
            error.args = (f"fold {number}: {error}",)
            raise


def cross_validate(
    config: Config, prepare: Callable[[Config, Parts], Experiment], say: Callable[[str], None]
) -> dict[str, Any]:
    """Train and score ``config.data.folds`` networks; all that is learnt from rows is learnt on each one's own.

    Parameters
    ----------
    config : Config
        With its task.
    prepare : callable
        Makes an experiment of training, validation and test rows: scaler, categories, network, trainer.
    say : callable
        Told how each fold went.

    Returns
    -------
    dict
        ``folds``: a mapping of scores for each; ``mean`` and ``deviation`` (of a sample: divided by k - 1) of each
        score over the folds in which it is defined.
    """
    each: list[dict[str, float]] = []
    for number, parts in enumerate(read_folds(config), start=1):
        experiment = prepare(config, parts)
        fit(experiment, *encoded(experiment))
        test = parts[2]
        assert test is not None, "a fold has rows"
        found = experiment.model.evaluate(test)
        scores = {name: value for name, value in found.items() if isinstance(value, int | float)}
        each.append(scores)
        name, value = list(scores.items())[2]  # after rows and cost
        say(f"fold {number} of {config.data.folds}: {name} {value:.4f} on {test.n_samples} rows")
    names = [name for name in each[0] if name != "rows"]
    columns = {name: np.array([scores.get(name, np.nan) for scores in each], np.float64) for name in names}
    defined = {name: column[~np.isnan(column)] for name, column in columns.items()}
    return {
        "folds": each,
        "mean": {name: float(column.mean()) if len(column) else float("nan") for name, column in defined.items()},
        "deviation": {
            name: float(column.std(ddof=1)) if len(column) > 1 else float("nan") for name, column in defined.items()
        },
    }
