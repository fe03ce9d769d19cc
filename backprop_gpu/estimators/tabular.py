"""``preset="tabular"``: settings that suit tables, a scaler within the estimator, and the mean of several nets.

The recipe follows RealMLP (Holzmueller, Grinsztajn & Steinwart 2024, "Better by default"): robust scaling with smooth
clipping, standardized targets, decoupled weight decay, a schedule that ends near 0, the best epoch restored.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning

from ..errors import CheckpointError, ConfigError
from ..maths.losses import Loss
from ..network.dense_net import BLOCK_ROWS
from ..training.callbacks import Callback, Epoch
from ..training.validation import HeldOut
from .ensemble import Entrant, fit_together
from .fitted_network import fitted_of, named_of, runtime_of
from .params import hidden_sizes, is_given
from .rows import Rows, dense, split_apart

CLIP = 3.0
LEAST_ROWS = 20  # of fewer, none are held out
SCALED_ROWS = 16 * BLOCK_ROWS  # at a time for predictions, so that memory does not grow with the table
_ENCODING = ("classes_", "_label_binarizer", "n_outputs_", "n_features_in_", "_fitted_on")


@dataclass
class SmoothClip:
    """x -> z / sqrt(1 + (z/3)^2), z = (x - centre) / spread, column by column: within +-3, nearly z around 0.

    Attributes
    ----------
    centre, spread : ndarray of shape (n_features,)
        Median, and distance of the quartiles; where that is 0 half the range, and 1 for a constant column.
    """

    centre: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray) -> SmoothClip:
        """Learn from rows X (n, n_features)."""
        low, centre, high = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
        half_range = (X.max(axis=0) - X.min(axis=0)) / 2.0
        spread = np.where(high > low, high - low, half_range)
        return cls(centre, np.where(spread > 0.0, spread, 1.0))

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Scaled rows."""
        z = (X - self.centre) / self.spread
        return z / np.sqrt(1.0 + np.square(z / CLIP))


def settings_for(estimator: Any, n: int) -> dict[str, Any]:
    """Parameters of a member that is fitted to n rows: the preset's, but for those that are not at their default.

    The batch grows with the rows from 32 to 256, and the epochs fall beyond 10,000 rows from 200 to 20.
    """
    preset: dict[str, Any] = {
        "hidden_layer_sizes": (128, 64),
        "activation": "silu",
        "solver": {"name": "adamw", "weight_decay": 0.02},
        "alpha": 0.0,
        "learning_rate": {"name": "one_cycle", "rise": 0.1},
        "learning_rate_init": 3e-3,
        "batch_size": 2 ** int(np.clip(np.log2(max(n, 1) / 16.0), 5.0, 8.0)),
        "max_iter": int(np.clip(2_000_000 // max(n, 1), 20, 200)),
        "n_iter_no_change": 40,
        "validation_fraction": 0.15,
        "initializer": "auto",
        "dropout": 0.1,
        "dtype": "float32",
    }
    taken = estimator.get_params(deep=False)
    taken |= {name: value for name, value in preset.items() if not is_given(estimator, name)}
    taken["batch_size"] = taken["batch_size"] if taken["batch_size"] == "auto" else min(taken["batch_size"], max(n, 1))
    return taken | {"preset": None, "early_stopping": False}


class KeepBest(Callback):
    """Keeps the parameters with which the validation loss was least, and counts the epochs since it fell by ``tol``."""

    def __init__(self, member: Any) -> None:
        self.member, self.least = member, np.inf
        self.progress, self.epoch = np.inf, 0  # the loss from which, and the epoch since which it has not fallen
        self.tol = float(member.tol) if is_given(member, "tol") else 0.0
        self.parameters: dict[str, np.ndarray] | None = None

    def on_epoch(self, epoch: Epoch) -> None:
        """Keep the parameters, or tell the fit how long there has been no progress."""
        cost = epoch.validation["cost"]
        if cost < self.progress - self.tol:
            self.progress, self.epoch = cost, epoch.epoch
        if cost < self.least:
            self.least = cost
            engine = runtime_of(self.member).fitting
            assert engine is not None, "an epoch is of a fit"
            with engine.step.averaged():  # which is what was judged
                self.parameters = engine.net.parameters()
        self.member._no_improvement_count = epoch.epoch - self.epoch


def fit_members(e: Any, rows: Rows, loss: Loss, held_out: HeldOut | None) -> None:
    """Fit ``members_`` together, each from its own start and, unless given, with its own held-out rows."""
    if e.warm_start:
        raise ValueError("preset='tabular' fits several nets anew; use warm_start=False, or preset=None")
    rows = rows.weighted()
    X = dense(rows.X)
    e.scaler_ = SmoothClip.of(X)
    e.target_centre_, e.target_spread_ = _target_scale(e, rows.Y, loss)
    scaled = Rows(e.scaler_(X), _scaled(e, rows.Y), rows.weights)
    if held_out is not None:
        units = partial(_in_units, e)
        held_out = HeldOut(e.scaler_(held_out.X), _scaled(e, held_out.Y), held_out.weights, units)
    for name in ("coefs_", "intercepts_", "norms_", "_optimizer", "members_", *e._blank_record()):  # of an earlier fit
        vars(e).pop(name, None)
    seeds = e._random_state.randint(2**31 - 1, size=e.n_members)
    entrants = [_entrant(e, int(seed), scaled, held_out, loss) for seed in seeds]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a schedule is meant to run to its end
        fitted = fit_together(entrants, scaled, loss)
    e.members_ = members = [_finished(e, entrant) for entrant in fitted]
    first = members[0]
    e.n_layers_, e.out_activation_ = first.n_layers_, first.out_activation_
    e.n_iter_, e.t_ = max(m.n_iter_ for m in members), sum(m.t_ for m in members)
    e.loss_ = float(np.mean([vars(m).get("loss_", np.nan) for m in members]))  # none before an interrupted first epoch


def _entrant(e: Any, seed: int, rows: Rows, held_out: HeldOut | None, loss: Loss) -> Entrant:
    """A member with its start and its rows, everything drawn from its own seed."""
    member = new_member(e, len(rows.Y), seed)
    runtime_of(member).turns = runtime_of(e).turns
    member._random_state = np.random.RandomState(seed)
    inside = None
    if held_out is None and len(rows.Y) >= LEAST_ROWS:
        inside, held_out = split_apart(member, rows)
        held_out.units = partial(_in_units, e)
    sizes = (rows.X.shape[1], *hidden_sizes(member), e.n_outputs_)
    member._initialize(sizes, loss, member.dtype or str(rows.X.dtype))
    if held_out is not None:
        member.callbacks = [*member.callbacks, KeepBest(member)]
    return Entrant(member, sizes, inside, held_out, together=not e.callbacks)


def _finished(e: Any, entrant: Entrant) -> Any:
    """The member with the parameters of its best epoch, and with nothing that predictions do not need."""
    member = entrant.member
    if entrant.held_out is not None:
        best = member.callbacks[-1].parameters
        member._hold({} if best is None else fitted_of(best))
    member.callbacks = e.callbacks
    del member._runtime, member._optimizer
    return member


def new_member(e: Any, n: int, seed: int) -> Any:
    """A member of an estimator that has its encoding, for n rows; not fitted."""
    member = type(e)(**settings_for(e, n) | {"random_state": seed})
    for name in _ENCODING:
        if name in vars(e):
            setattr(member, name, vars(e)[name])
    return member


def _target_scale(e: Any, Y: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """(centre, spread), (n_outputs,) each: mean and deviation of values; 0 and 1 of what must not be moved."""
    k = Y.shape[1]
    if is_classifier(e) or loss.link_name != "identity":
        return np.zeros(k), np.ones(k)
    spread = Y.std(axis=0)
    return Y.mean(axis=0), np.where(spread > 0.0, spread, 1.0)


def _scaled(e: Any, Y: np.ndarray) -> np.ndarray:
    return Y if is_classifier(e) else (Y - e.target_centre_) / e.target_spread_


def _in_units(e: Any, values: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_scaled`."""
    return values if is_classifier(e) else values * e.target_spread_ + e.target_centre_


def average(e: Any, X: Any) -> np.ndarray:
    """The mean of what the members put out, probabilities or values, (n, n_outputs): block by block of rows."""
    X, nets = X.tocsr() if issparse(X) else X, [member._loaded() for member in e.members_]
    blocks = []
    for start in range(0, X.shape[0], SCALED_ROWS):
        scaled = e.scaler_(dense(X[start : start + SCALED_ROWS])).astype(nets[0].dtype)
        blocks.append(np.mean([net.predict_proba(scaled) for net in nets], axis=0))
    AL = np.concatenate(blocks)
    return _in_units(e, AL)


def refuse(e: Any, what: str) -> None:
    """That something is of one network.

    Raises
    ------
    ConfigError
        If the estimator is fitted with the preset.
    """
    if "members_" in vars(e):
        raise ConfigError(f"{what} is of one network, preset='tabular' has several behind a scaler: see members_")


# -- files -----------------------------------------------------------------------------------------------------------


def to_tensors(e: Any) -> dict[str, np.ndarray]:
    """Scalers and the members' parameters by name."""
    found = {"scaler/centre": e.scaler_.centre, "scaler/spread": e.scaler_.spread}
    found |= {"target/centre": e.target_centre_, "target/spread": e.target_spread_}
    for i, member in enumerate(e.members_):
        found |= {f"member/{i}/{k}": x for k, x in named_of(member._held()).items()}
    return found


def from_tensors(e: Any, tensors: dict[str, np.ndarray]) -> None:
    """The inverse of :func:`to_tensors`, for an estimator with its parameters and encoding."""
    for name in ("coefs_", "intercepts_", "norms_"):  # of the one network that a file has in any case
        vars(e).pop(name, None)
    e.scaler_ = SmoothClip(tensors["scaler/centre"], tensors["scaler/spread"])
    e.target_centre_, e.target_spread_ = tensors["target/centre"], tensors["target/spread"]
    named: dict[int, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        if key.startswith("member/"):
            _, i, parameter = key.split("/")
            named.setdefault(int(i), {})[parameter] = tensor
    e.members_ = [_loaded(e, i, fitted_of(named[i])) for i in sorted(named)]
    for first, last in ((member.coefs_[0], member.coefs_[-1]) for member in e.members_):
        for x, n in ((e.scaler_.centre, len(first)), (e.scaler_.spread, len(first))):
            if x.shape != (n,):
                raise CheckpointError(f"a scaler of {x.shape} does not fit a network of {n} inputs")
        if not is_classifier(e) and {e.target_centre_.shape, e.target_spread_.shape} != {last.shape[1:]}:
            raise CheckpointError(f"a scaler of {e.target_centre_.shape} does not fit {last.shape[1]} outputs")


def _loaded(e: Any, seed: int, fitted: dict[str, Any]) -> Any:
    member = new_member(e, 1, seed)
    member._hold(fitted)
    member.n_layers_, member.out_activation_ = e.n_layers_, e.out_activation_
    return member
