"""One call of ``fit`` or ``partial_fit``, from top to bottom: rows, weights, validation set, epochs, attributes.

The epochs are those of ``training.loop``; what is scikit-learn's about them is in ``sklearn_rules``.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from ..errors import BackpropError, ConfigError, DivergedError, NonFiniteError
from ..maths.losses import Loss
from ..network.dense_net import DenseNet
from ..network.state import State, take
from ..training.batches import Batches
from ..training.epoch import JointEpoch
from ..training.loop import FitState, run_epochs
from ..training.micro_batch import SettingNames
from ..training.validation import Evaluation, Evaluator, ValidationSet
from .conversion import dense, on_host
from .fitted_network import (
    RAW_WEIGHTS,
    FittedNetwork,
    OptimizerState,
    Plan,
    build_net,
    device_state,
    fitted_of,
    plan_for,
    sizes_of,
)
from .lbfgs import fit_lbfgs
from .params import SKLEARN_START, hidden_sizes, invalid, is_logistic, per_layer
from .resume import load_fit_state, state_to_resume
from .sklearn_rules import SklearnCallbacks, SklearnRule, initial_parameters, load_random_state, random_state_dict
from .splitting import Rows, batches_over, checked_rows, divided, given_validation_set

NAMES = SettingNames("batch_size", "hidden_layer_sizes", "")
FREE = ("verbose", "warm_start", "callbacks", "device", "kernels", "random_state")  # what a state may differ in


# -- from top to bottom ----------------------------------------------------------------------------------------------


def fit(
    e: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    incremental: bool = False,
    held_out: tuple[Any, Any, Any] = (None, None, None),
    resume: Any = None,
    allow_change: bool = False,
) -> None:
    """Fit an estimator, whose fitted attributes are written; ``incremental``: the one epoch of ``partial_fit``.

    ``held_out``: X, y and weights of a validation set. ``resume``, ``allow_change``: see ``MLPClassifier.fit``.
    """
    resume = None if resume is None else state_to_resume(resume)
    first = not hasattr(e, "coefs_") or (not e.warm_start and not incremental)
    X, held_out = e._read_columns(X, held_out)
    rows, by_class = checked_rows(e, X, y, sample_weight, first, incremental)
    loss, n_outputs = e._loss_of(rows.Y)
    sizes = (rows.X.shape[1], *hidden_sizes(e), n_outputs)
    if not first and e.preset is None:
        check_sizes(e, sizes)
    e.n_outputs_, e._random_state = n_outputs, check_random_state(e.random_state)
    if e.preset is not None:
        validation = given_validation_set(e, by_class, *held_out)
        with diverging("lower learning_rate_init, or set clip_norm"):
            e._fit_preset(rows, loss, validation, resume, allow_change)
        return
    vars(e).pop("members_", None)
    if first:
        initialize(e, sizes, loss, str(rows.X.dtype))
    callbacks = SklearnCallbacks(e, X, on_host(y), on_host(sample_weight), e.max_iter)
    if e.solver == "lbfgs":
        network = network_for_lbfgs(e, sizes, loss, len(rows.Y), held_out, resume)
        with diverging("scale the features and the target"), training(e, network), followed(e, None, no_state):
            fit_lbfgs(e, network, dense(rows.X), rows.Y, rows.weights, callbacks)
    else:
        drawn_from = random_state_of(e, resume)
        rows, validation = divided(e, rows, given_validation_set(e, by_class, *held_out), incremental)
        network = network_of(e, plan_for(e, sizes, loss, str(e.coefs_[0].dtype), len(rows.Y)), incremental)
        with diverging("lower learning_rate_init, or set clip_norm"), training(e, network, incremental):
            batches, captured = batches_of(e, network, rows, incremental)
            rule = SklearnRule(e, network, e._optimizer, callbacks, incremental=incremental)
            state = fit_state(e, batches, rule, validation)
            evaluate = Evaluator({state: evaluation_of(e, network, validation)}) if validation else None
            with under_way(e, [state], lambda: drawn_from | {"fit": state.state_dict()}):
                if resume is not None:
                    load_fit_state(state, take(resume, "state.fit", dict), allow_change)
                captured = run_epochs([state], evaluate, captured)
                network.captured = captured if incremental else None
            warn_of_notes([state])
            warn_of_the_end(e, state)
    callbacks.end()
    if not incremental:  # which holds the rows; predictions need the network alone
        device_state(e).kept = None


# -- initial weights and attributes ----------------------------------------------------------------------------------


def initialize(e: Any, sizes: tuple[int, ...], loss: Loss, dtype: str) -> None:
    """Fitted attributes of a first fit, and initial weights in scikit-learn's order of draws."""
    e.n_iter_, e.t_, e.n_layers_ = 0, 0, len(sizes)
    e.out_activation_ = {"sigmoid": "logistic", "exponential": "exp"}.get(loss.link_name, loss.link_name)
    n_hidden = len(sizes) - 2
    try:
        hidden = [is_logistic(a) for a in per_layer(e.activation, n_hidden)]
    except BackpropError as error:
        raise invalid(e, "activation", error) from error
    output = hidden[-1] if hidden else e.activation == "logistic"
    e.coefs_, e.intercepts_ = initial_parameters(e._random_state, sizes, [*hidden, output], dtype)
    vars(e).pop("norms_", None)
    if e.initializer != SKLEARN_START or np.any(e.batch_norm) or e.batch_ensemble > 1:
        named = (
            e.initializer != SKLEARN_START or e.batch_ensemble > 1
        )  # scikit-learn draws no output layer for each member
        plan, seed = plan_for(e, sizes, loss, dtype, 1), draw_seed(e) if named else 0
        start = fitted_of(build_net(plan, seed, start_of(e) if named else "zeros").parameters())
        vars(e).update(start if named else {"norms_": start["norms_"]})
    e._seed = draw_seed(e) if np.any(e.dropout) else 0
    record = blank_record(e)
    for name in record:  # of an earlier fit
        vars(e).pop(name, None)
    if e.solver != "lbfgs":
        vars(e).update(record)


def start_of(e: Any) -> str:
    """The name of the initializer."""
    return "auto" if e.initializer == SKLEARN_START else e.initializer


def blank_record(e: Any) -> dict[str, Any]:
    """The attributes that a stochastic solver writes epoch by epoch, as they are before the first."""
    stopping = bool(e.early_stopping)
    return {
        "loss_curve_": [],
        "_no_improvement_count": 0,
        "validation_scores_": [] if stopping else None,
        "best_validation_score_": -math.inf if stopping else None,
        "best_loss_": None if stopping else math.inf,
        "_best": e._held(),
        "validation_loss_curve_": [],
        "validation_metric_curves_": {name: [] for name in e.validation_metrics},
    }


def check_sizes(e: Any, sizes: tuple[int, ...]) -> None:
    """That fitted weights are those of a network of these sizes."""
    fitted = sizes_of(e)[1:]
    if fitted[:-1] != sizes[1:-1]:
        reason = f"weights of {fitted[:-1]} were fitted, which warm_start and partial_fit continue; got {sizes[1:-1]}"
        raise invalid(e, "hidden_layer_sizes", reason)
    if fitted[-1] != sizes[-1]:
        raise ValueError(f"y must have {fitted[-1]} outputs, as in the fit that is continued; got {sizes[-1]}.")


def draw_seed(e: Any) -> int:
    """A seed of dropout's masks or of a named initializer."""
    return int(e._random_state.randint(0, 2**31 - 1))


def random_state_of(e: Any, resume: Any = None) -> State:
    """Where the generator stands before rows are drawn, for states of the fit; ``resume``: put it where it stood."""
    if resume is not None:
        if e.random_state is None:
            e._random_state = np.random.RandomState()  # and not NumPy's own
        load_random_state(e._random_state, take(resume, "state.random_state", dict))
        if "_seed" in vars(e):
            e._seed = take(resume, "state.seed", int)
    return {"random_state": random_state_dict(e._random_state), "seed": vars(e).get("_seed", 0)} if e.callbacks else {}


# -- the network and its fit -----------------------------------------------------------------------------------------


def network_of(e: Any, plan: Plan, incremental: bool = False, share_with: DenseNet | None = None) -> FittedNetwork:
    """The network that is trained, and ``_optimizer`` as it begins: where ``partial_fit`` left it, or anew."""
    optimizer: OptimizerState | None = vars(e).get("_optimizer") if incremental else None
    if optimizer is None or not optimizer.suits(plan.optimizer):
        optimizer = OptimizerState(plan.optimizer.learning_rate)
    e._optimizer = optimizer
    for name, value in blank_record(e).items():  # none after lbfgs, or where weights came from elsewhere
        vars(e).setdefault(name, value)
    return device_state(e).network_to_fit(e, plan, vars(e).get("_seed", 0), share_with)


def network_for_lbfgs(
    e: Any, sizes: tuple[int, ...], loss: Loss, n: int, held_out: tuple[Any, Any, Any], resume: Any
) -> FittedNetwork:
    """In float64, as scikit-learn's, unless ``dtype`` says otherwise."""
    if held_out[0] is not None:
        raise ValueError("solver='lbfgs' follows no validation set; leave X_val and y_val out.")
    if resume is not None:
        raise ValueError(
            "solver='lbfgs' cannot be resumed, SciPy keeps its state; leave resume out, or use warm_start."
        )
    plan = plan_for(e, sizes, loss, e.dtype or "float64", n)
    if plan.members > 1:
        raise invalid(e, "batch_ensemble", "solver='lbfgs' trains one network; use a solver that takes batches, or 1")
    for name in ("dropout", "batch_norm"):
        if any(getattr(plan, name)):
            raise invalid(e, name, f"solver='lbfgs' needs a loss that stays the same; leave {name} out")
    return device_state(e).network_to_fit(e, plan, 0)


def load_weights(e: Any, network: FittedNetwork) -> None:
    """Give the network the estimator's weights."""
    network.load((e.coefs_, e.intercepts_), vars(e).get("norms_", {}))


@contextlib.contextmanager
def training(e: Any, network: FittedNetwork, incremental: bool = False) -> Iterator[None]:
    """Within it the network begins with the estimator's weights; in the end the estimator gets those of the network,
    or with ``early_stopping`` those of the best epoch.
    """
    device, stochastic = device_state(e), e.solver != "lbfgs"
    raw = e._optimizer.vectors.pop(RAW_WEIGHTS, None) if incremental else None
    if raw is None:
        load_weights(e, network)
    else:
        network.net.set_parameters(raw)
    device.fitting = network
    try:
        yield
    finally:
        if incremental and network.step.optimizer.average:
            e._optimizer.vectors[RAW_WEIGHTS] = network.net.parameters()
        with network.step.averaged():
            vars(e).update(network.fitted())
        device.fitting = None
        if stochastic and e.early_stopping:
            vars(e).update(e._best)


def batches_of(e: Any, network: FittedNetwork, rows: Rows, incremental: bool) -> tuple[Batches, JointEpoch | None]:
    """Batches of the rows, and the epoch that an earlier ``partial_fit`` captured for rows of the same shapes."""
    key = (rows.X.shape, issparse(rows.X), rows.Y.shape, rows.weights is None, e.shuffle)
    if not (incremental and network.key == key):
        network.forget(key)
        how = {"batch_size": network.plan.batch_size, "shuffle": e.shuffle}
        return batches_over(network.net, rows, **how, copy=incremental), None
    assert network.captured is not None, "it has a key"
    batches = network.captured.programs[0].batches
    X = rows.X.toarray() if issparse(rows.X) and batches.on == "device" else rows.X
    batches.refill(X, rows.Y, rows.weights)
    assert batches.sampler is not None, "batches_over gave it"
    batches.sampler.set_weights(rows.weights)
    return batches, network.captured


def fit_state(
    e: Any, batches: Batches, rule: SklearnRule, validation: ValidationSet | None, owner: Any = None
) -> FitState:
    """A fit that has not begun: rows as they come, the optimizer where it stands. Callbacks are those of ``owner``."""
    owner = owner or e
    rule.optimizer.load_into(rule.network)
    assert batches.sampler is not None, "batches_over gave it"
    batches.sampler.restart(e._random_state)
    e.n_iter_ = 0
    return FitState(
        *(rule.network.step, batches, rule),
        epochs=e.max_iter,
        settings=lambda: settings_of(e) | {"partial_fit": rule.incremental},
        validation=None if validation is None else (validation.X, validation.Y),
        callbacks=owner.callbacks,
        names=NAMES,
        between_steps=device_state(owner).pause,
        checks_outputs=not rule.incremental,
    )


def settings_of(e: Any) -> State:
    """The parameters that a state must have been made with."""
    return {name: value for name, value in e.get_params(deep=False).items() if name not in FREE}


def evaluation_of(e: Any, network: FittedNetwork, validation: ValidationSet) -> Evaluation:
    """The validation set on the device, with the metrics of the estimator."""
    one_class = is_classifier(e) and len(e.classes_) == 1 and e.n_outputs_ == 1
    try:
        return Evaluation(network.net, validation, tuple(e.validation_metrics), one_class)
    except ConfigError as error:
        raise invalid(e, "validation_metrics", error) from error


# -- how it ends -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def followed(owner: Any, state: FitState | None, take_state: Callable[[], State]) -> Iterator[None]:
    """Within it callbacks of the estimator follow a fit, and can take its state."""
    device = device_state(owner)
    device.current, device.take_state = state, take_state
    for callback in owner.callbacks:
        callback.trainer = device
    try:
        yield
    finally:
        device.current = device.take_state = None
        for callback in owner.callbacks:
            callback.trainer = None


def no_state() -> State:
    """What L-BFGS answers."""
    raise ConfigError("solver='lbfgs' has no state to be taken: SciPy keeps it; use another solver, or warm_start")


@contextlib.contextmanager
def under_way(owner: Any, fits: Sequence[FitState], take_state: Callable[[], State]) -> Iterator[None]:
    """Within it fits are under way, of which ``take_state`` gives the state; Ctrl-C ends them with what they have.

    Where one diverges, weights that are of no use become those of before; with ``early_stopping`` that is a warning,
    since the best weights are kept.
    """
    try:
        with followed(owner, fits[0], take_state):
            yield
    except KeyboardInterrupt:
        for fit in fits:
            fit.history.stopped = "interrupted"
        warnings.warn("Training interrupted by user.", stacklevel=4)
    except NonFiniteError as error:
        for fit in fits:
            rule: Any = fit.rule
            with fit.step.averaged():
                finite = fit.outputs_are_finite()
            if not finite:
                load_weights(rule.estimator, rule.network)
                fit.step.t = 0  # its average is of no use either
        if not owner.early_stopping:
            raise NonFiniteError(f"{error}{_where(error, fits)}") from None
        rule.diverged(error)
        return
    finally:
        for fit in fits:
            rule = fit.rule
            if rule.parameters is not None:
                rule.estimator._best = fitted_of(rule.parameters)
    for fit in fits:
        rule = fit.rule
        rule.optimizer.read_from(rule.network)


def _where(error: NonFiniteError, fits: Sequence[FitState]) -> str:
    """The epoch of the step that was not finite, and of several networks which one, counted from 1."""
    if not isinstance(error, DivergedError) or error.found is None:
        return ""
    number = next((k for k, fit in enumerate(fits, 1) if fit.step.net is error.net), 1)
    which = f" of network {number} of {len(fits)}" if len(fits) > 1 else ""
    return f" in epoch {fits[number - 1].batches.epoch + 1}{which}"


def warn_of_notes(fits: Sequence[FitState]) -> None:
    """Warn of what a user should know, such as that memory ran out."""
    for note in dict.fromkeys(note for fit in fits for note in fit.history.notes):
        warnings.warn(note, stacklevel=3)


def warn_of_the_end(e: Any, state: FitState) -> None:
    """Warn if the epochs ran out."""
    if not state.rule.stopped and state.history.stopped == "epochs":
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({e.max_iter}) reached and the optimization "
            "hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def diverging(fix: str) -> Iterator[None]:
    """Where a fit may diverge: scikit-learn's words for it, and what would help."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            f"preprocessed. ({error}; {fix})"
        ) from None
