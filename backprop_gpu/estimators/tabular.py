"""``preset="tabular"``: settings that suit tables, a scaler within the estimator, and the mean of several nets.

The recipe follows RealMLP (Holzmueller, Grinsztajn & Steinwart 2024, "Better by default"): robust scaling with smooth
clipping, standardized targets, decoupled weight decay, its schedule of the learning rate, the best epoch restored; and
a piecewise-linear encoding of numbers beside them (:mod:`~backprop_gpu.data.tabular_inputs`).

The nets are fitted at once: a step of the ensemble is one recorded program. Each keeps its own initial weights, order
of rows and dropout, so that it gets the bits that it gets alone. The rows are stored on the device once; which of them
a net trains on is an order of their numbers.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier

from .. import presets
from ..data.date_text import PARTS
from ..data.frame_columns import FrameColumns, holds_more_than_numbers
from ..data.piecewise_linear import bins_for
from ..data.tabular_inputs import TabularInputs
from ..errors import CheckpointError, ConfigError
from ..maths.losses import Loss
from ..network.dense_net import BLOCK_ROWS, DenseNet
from ..network.state import State, take
from ..training.batches import Batches
from ..training.callbacks import Epoch
from ..training.loop import FitState, run_epochs
from ..training.reshuffling import batches_over
from ..training.validation import Evaluation, Evaluator, ValidationSet
from .fit import (
    evaluation_of,
    fit_state,
    load_fit_state,
    network_of,
    random_state_of,
    training,
    under_way,
    warn_of_notes,
)
from .fitted_network import device_state, fitted_of, named_of, plan_for, sizes_of
from .inputs import Rows, dense, split_apart
from .params import hidden_sizes, is_given
from .sklearn_rules import SklearnCallbacks, SklearnRule, blank_record, initialize

LEAST_ROWS = 20  # of fewer, none are held out
SCALED_ROWS = 16 * BLOCK_ROWS  # at a time for predictions, so that memory does not grow with the table
_ENCODING = ("classes_", "_label_binarizer", "n_outputs_", "n_features_in_", "_fitted_on")


# -- inputs ----------------------------------------------------------------------------------------------------------


def read_columns(e: Any, X: Any, held_out: tuple[Any, Any, Any]) -> tuple[Any, tuple[Any, Any, Any]]:
    """A data frame with more than plain numbers, and a validation set like it, as numbers; ``columns_`` says which."""
    if not holds_more_than_numbers(X):
        return X, held_out
    e.columns_ = FrameColumns.fit(X)
    for note in e.columns_.notes:
        warnings.warn(note, stacklevel=6)
    X_val, *others = held_out
    return e.columns_.codes(X), (None if X_val is None else e.columns_.codes(X_val), *others)


def _learn_inputs(e: Any, X: np.ndarray) -> TabularInputs:
    """What turns rows into inputs, learnt on those that are trained on; names of the frame's columns are settled."""
    if "columns_" not in vars(e):
        return TabularInputs.fit(X, bins_for(presets.BINS, X.shape[1]))
    bins = bins_for(presets.BINS, X.shape[1] + sum(len(PARTS.get(kind, ())) for kind in e.columns_.kinds))
    e.feature_names_in_ = np.array(e.columns_.names, dtype=object)
    return TabularInputs.fit(X, bins, e.columns_.kinds, e.columns_.sizes)


def _encoded(inputs: TabularInputs, X: np.ndarray) -> np.ndarray:
    """Inputs in the floats of the rows, block by block."""
    out = np.empty((len(X), inputs.width), X.dtype if X.dtype.kind == "f" else np.float64)
    for start in range(0, len(X), SCALED_ROWS):
        part = slice(start, start + SCALED_ROWS)
        out[part] = inputs(X[part])
    return out


# -- settings --------------------------------------------------------------------------------------------------------


def settings_for(estimator: Any, n: int) -> dict[str, Any]:
    """Parameters of a member that is fitted to n rows: the preset's, but for those that are not at their default."""
    shared = members_share(estimator, n)
    preset: dict[str, Any] = {
        "hidden_layer_sizes": presets.HIDDEN,
        "activation": presets.ACTIVATION,
        "solver": {"name": "adamw", "weight_decay": presets.WEIGHT_DECAY},
        "alpha": 0.0,
        "learning_rate": presets.SCHEDULE,
        "learning_rate_init": presets.LEARNING_RATE,
        "batch_size": presets.batch_size_for(n),
        "max_iter": presets.epochs_for(n),
        "n_iter_no_change": presets.patience_for(n),
        "validation_fraction": presets.VALIDATION,
        "initializer": presets.initializer_for(shared),
        "batch_ensemble": presets.MEMBERS // presets.NETS if shared else 1,
        "dropout": presets.DROPOUT,
        "dtype": "float32",
    }
    taken = estimator.get_params(deep=False)
    taken |= {name: value for name, value in preset.items() if not is_given(estimator, name)}
    taken["batch_size"] = taken["batch_size"] if taken["batch_size"] == "auto" else min(taken["batch_size"], max(n, 1))
    return taken | {"preset": None, "early_stopping": False}


def members_share(estimator: Any, n: int) -> bool:
    """Whether each net that is fitted to n rows has members that share weights."""
    alone = bool(np.any(estimator.batch_norm)) or not np.size(estimator.hidden_layer_sizes)
    return n >= presets.SHARED_ROWS and not alone


class ValidationLossRule(SklearnRule):
    """Keeps the parameters with which the validation loss was least, and counts the epochs since it fell by ``tol``."""

    watched = "Validation loss did not improve"

    def __init__(self, estimator: Any, *given: Any, **named: Any) -> None:
        super().__init__(estimator, *given, **named)
        self.tol = float(estimator.tol) if is_given(estimator, "tol") else 0.0
        self.least, self.progress, self.since = np.inf, np.inf, 0

    def _count(self, epoch: Epoch, fit: FitState) -> None:
        super()._count(epoch, fit)
        cost = epoch.validation["cost"]
        if cost < self.progress - self.tol:
            self.progress, self.since = cost, epoch.epoch
        if cost < self.least:
            self.least = cost
            self.keep(epoch, fit)
        self.estimator._no_improvement_count = epoch.epoch - self.since

    def state_dict(self) -> State:
        """What an exact resume needs."""
        progress = {"least": float(self.least), "progress": float(self.progress), "since": self.since}
        return super().state_dict() | progress

    def load_state_dict(self, state: State, fit: FitState) -> None:
        """Go on from what :meth:`state_dict` gave."""
        least, progress = (float(take(state, f"best.{name}", float)) for name in ("least", "progress"))
        since = take(state, "best.since", int)
        super().load_state_dict(state, fit)
        self.least, self.progress, self.since = least, progress, since


@dataclass(eq=False)
class Member:
    """An estimator of one net, which has its initial weights, and what it is fitted to.

    Attributes
    ----------
    estimator : MLPClassifier or MLPRegressor
    sizes : tuple of int
        Units per layer.
    chosen : (k,) int or None
        The rows that it trains on; None for all.
    validation : ValidationSet or None
    fit : FitState or None
        None before it begins.
    """

    estimator: Any
    sizes: tuple[int, ...]
    chosen: np.ndarray | None
    validation: ValidationSet | None
    fit: FitState | None = None

    def n(self, rows: Rows) -> int:
        """How many rows it trains on."""
        return len(rows.Y) if self.chosen is None else len(self.chosen)


def fit_members(
    e: Any, rows: Rows, loss: Loss, validation: ValidationSet | None, resume: Any, allow_change: bool
) -> None:
    """Fit ``members_`` together, each from its own start and, unless given, with its own validation set."""
    if e.warm_start:
        raise ValueError("preset='tabular' fits several nets anew; use warm_start=False, or preset=None")
    rows = rows.weighted()
    X = dense(rows.X)
    e.inputs_ = inputs = _learn_inputs(e, X)
    e.target_centre_, e.target_spread_ = _target_scale(e, rows.Y, loss)
    scaled = Rows(_encoded(inputs, X), _scaled(e, rows.Y), rows.weights)
    if validation is not None:
        units = partial(_in_units, e)
        validation = ValidationSet(_encoded(inputs, validation.X), _scaled(e, validation.Y), validation.weights, units)
    for name in ("coefs_", "intercepts_", "norms_", "_optimizer", "members_", *blank_record(e)):  # of an earlier fit
        vars(e).pop(name, None)
    drawn_from = random_state_of(e, resume)
    seeds = e._random_state.randint(2**31 - 1, size=e.n_members)
    members = [_member(e, int(seed), scaled, validation, loss) for seed in seeds]
    saved: list[Any] = [None] * len(members) if resume is None else take(resume, "state.members", list)
    if len(saved) != len(members):
        raise ConfigError(f"the state does not fit: it is of {len(saved)} nets, n_members is {len(members)} here")

    def state_dict() -> State:
        return drawn_from | {"members": [None if m.fit is None else m.fit.state_dict() for m in members]}

    for group in _groups(members, scaled, saved, together=not e.callbacks):
        if not _fit_group(e, group, scaled, loss, state_dict, allow_change):
            break
    e.members_ = fitted = [_finished(e, member) for member in members if member.fit is not None]
    first = fitted[0]
    e.n_layers_, e.out_activation_ = first.n_layers_, first.out_activation_
    e.n_iter_, e.t_ = max(m.n_iter_ for m in fitted), sum(m.t_ for m in fitted)
    e.loss_ = float(np.mean([vars(m).get("loss_", np.nan) for m in fitted]))  # none before an interrupted first epoch


Titled = tuple[str, Member, Any]
"""What verbose calls a member, the member, and the state of its fit that was saved, or None."""


def _groups(members: Sequence[Member], rows: Rows, saved: Sequence[Any], together: bool) -> list[list[Titled]]:
    """Those that advance together: with equally many rows, at the beginning of an epoch.

    With callbacks, which follow one run from its start to its end, each is a group of its own.
    """
    groups: dict[int, list[Titled]] = {}
    for number, (member, state) in enumerate(zip(members, saved, strict=True), start=1):
        between = state is None or not take(take(state, "fit.batches", dict), "batches.batch", int)
        key = member.n(rows) if together and between else -number
        groups.setdefault(key, []).append((f"net {number}: ", member, state))
    return list(groups.values())


def _fit_group(
    e: Any, group: Sequence[Titled], rows: Rows, loss: Loss, take_state: Callable[[], State], allow_change: bool
) -> bool:
    """Fit in one program; False if interrupted."""
    fits, evaluations = list[FitState](), dict[FitState, Evaluation]()
    net: DenseNet | None = None
    batches: Batches | None = None
    with contextlib.ExitStack() as stack:
        for title, member, state in group:
            own, validation = member.estimator, member.validation
            plan = plan_for(own, member.sizes, loss, str(own.coefs_[0].dtype), member.n(rows))
            network = network_of(own, plan, share_with=net)
            net = network.net
            stack.enter_context(training(own, network))
            how = {"batch_size": plan.batch_size, "shuffle": own.shuffle, "chosen": member.chosen}
            batches = batches_over(net, (rows.X, rows.Y, rows.weights), share_with=batches, **how)
            kind = SklearnRule if validation is None else ValidationLossRule
            callbacks = SklearnCallbacks(own, None, None, None, 0)
            rule = kind(own, network, own._optimizer, callbacks, title=title)
            member.fit = fit_state(own, batches, rule, validation, owner=e)
            member.fit.resumed = state is not None or (len(e.callbacks) > 0 and title != "net 1: ")
            fits.append(member.fit)
            if validation is not None:
                evaluations[member.fit] = evaluation_of(own, network, validation)
        stack.enter_context(under_way(e, fits, take_state))
        for fit, (_, _, state) in zip(fits, group, strict=True):
            if state is not None:
                load_fit_state(fit, state, allow_change)
        run_epochs(fits, Evaluator(evaluations) if evaluations else None)
    warn_of_notes(fits)
    return fits[0].history.stopped != "interrupted"


def _member(e: Any, seed: int, rows: Rows, validation: ValidationSet | None, loss: Loss) -> Member:
    """A member with its start and its rows, everything drawn from its own seed."""
    member = new_member(e, len(rows.Y), seed)
    device_state(member).lock = device_state(e).lock
    member._random_state, member.n_features_in_ = np.random.RandomState(seed), rows.X.shape[1]
    chosen = None
    if validation is None and len(rows.Y) >= LEAST_ROWS:
        chosen, validation = split_apart(member, rows)
        validation.units = partial(_in_units, e)
    sizes = (rows.X.shape[1], *hidden_sizes(member), e.n_outputs_)
    initialize(member, sizes, loss, member.dtype or str(rows.X.dtype))
    return Member(member, sizes, chosen, validation)


def _finished(e: Any, member: Member) -> Any:
    """The estimator with the parameters of its best epoch, and with nothing that predictions do not need."""
    own, fit = member.estimator, member.fit
    assert fit is not None, "it was fitted"
    if fit.rule.parameters is not None:
        vars(own).update(fitted_of(fit.rule.parameters))
    del own._device_state, own._optimizer
    return own


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
        scaled = e.inputs_(np.asarray(dense(X[start : start + SCALED_ROWS]), np.float64)).astype(nets[0].dtype)
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
    """What encodes inputs and targets, and the members' parameters, by name."""
    found = {f"inputs/{name}": x for name, x in e.inputs_.state()[0].items()}
    found |= {"target/centre": e.target_centre_, "target/spread": e.target_spread_}
    for i, member in enumerate(e.members_):
        found |= {f"member/{i}/{k}": x for k, x in named_of(member._held()).items()}
    return found


def to_meta(e: Any) -> dict[str, Any]:
    """What goes with :func:`to_tensors`, as JSON has it."""
    columns = {"columns": e.columns_.state()} if "columns_" in vars(e) else {}
    return {"inputs": e.inputs_.state()[1], **columns}


def from_tensors(e: Any, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """The inverse of :func:`to_tensors` and :func:`to_meta`, for an estimator with its parameters and encoding."""
    for name in ("coefs_", "intercepts_", "norms_"):  # of the one network that a file has in any case
        vars(e).pop(name, None)
    own = {name.removeprefix("inputs/"): x for name, x in tensors.items() if name.startswith("inputs/")}
    e.inputs_ = TabularInputs.from_state(own, meta["inputs"])
    if "columns" in meta:
        e.columns_ = FrameColumns.from_state(meta["columns"])
    if len(e.inputs_.kinds) != e.n_features_in_:
        raise CheckpointError(f"inputs of {len(e.inputs_.kinds)} columns do not fit a table of {e.n_features_in_}")
    if "columns" in meta and (e.columns_.kinds, e.columns_.sizes) != (e.inputs_.kinds, e.inputs_.sizes):
        raise CheckpointError("the columns of the data frame are not those of the inputs; make the file again")
    e.target_centre_, e.target_spread_ = tensors["target/centre"], tensors["target/spread"]
    named: dict[int, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        if key.startswith("member/"):
            _, i, parameter = key.split("/")
            named.setdefault(int(i), {})[parameter] = tensor
    e.members_ = [_loaded(e, i, fitted_of(named[i])) for i in sorted(named)]
    for first, outputs in ((member.coefs_[0], sizes_of(member)[-1]) for member in e.members_):
        if e.inputs_.width != len(first):
            raise CheckpointError(f"{e.inputs_.width} inputs do not fit a network of {len(first)}")
        if not is_classifier(e) and {e.target_centre_.shape, e.target_spread_.shape} != {(outputs,)}:
            raise CheckpointError(f"a scaler of {e.target_centre_.shape} does not fit {outputs} outputs")


def _loaded(e: Any, seed: int, fitted: dict[str, Any]) -> Any:
    member = new_member(e, 1, seed)
    vars(member).update(fitted)
    member.batch_ensemble = len(fitted.get("norms_", {}).get("R1", [None]))
    member.n_features_in_ = len(fitted["coefs_"][0])
    member.n_layers_, member.out_activation_ = e.n_layers_, e.out_activation_
    return member
