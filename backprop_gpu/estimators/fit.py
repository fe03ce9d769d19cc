"""One call of ``fit`` or ``partial_fit``, from top to bottom: rows, weights, validation set, epochs, attributes.

The epochs are those of ``training.loop``; what is scikit-learn's about them is in ``sklearn_rules``.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result

from ..errors import CheckpointError, ConfigError, DivergedError, NonFiniteError, shown
from ..maths.losses import Loss
from ..network.dense_net import DenseNet
from ..network.state import State, check_same, take
from ..training.batches import Batches
from ..training.callbacks import Epoch, StartedCallbacks
from ..training.checkpoint_file import state_in
from ..training.epoch import JointEpoch
from ..training.lbfgs import Objective, minimize_cost
from ..training.loop import FitState, run_epochs
from ..training.micro_batch import SettingNames
from ..training.ranks import left_by_error
from ..training.reshuffling import batches_over, load_random_state, random_state_dict
from ..training.validation import Evaluation, Evaluator, ValidationSet
from .fitted_network import (
    RAW_WEIGHTS,
    FittedNetwork,
    OptimizerState,
    Plan,
    device_state,
    fitted_of,
    plan_for,
)
from .inputs import Rows, checked_rows, dense, divided, given_validation_set, on_host
from .params import hidden_sizes, invalid
from .sklearn_rules import SklearnCallbacks, SklearnRule, blank_record, check_sizes, initialize

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
            fit_lbfgs(e, network, rows, callbacks)
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


# -- where it begins -------------------------------------------------------------------------------------------------


def state_to_resume(resume: Any) -> State:
    """The state of an estimator's fit, or that in a checkpoint or in the newest of a folder.

    Raises
    ------
    CheckpointError
        If it is something else; says what.
    """
    state = state_in(resume) if isinstance(resume, str | os.PathLike) else resume
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"resume must be a checkpoint's path or a state (a mapping), got {shown(resume)}; give what a Checkpoint "
            "among the estimator's callbacks wrote"
        )
    if "step" in state and "random_state" not in state:
        raise CheckpointError(
            "resume is a checkpoint of a Trainer, as backprop-gpu train writes it, and not of an estimator; go on with "
            "backprop-gpu train --resume RUN or Trainer.fit(resume=...), or fit anew, without resume"
        )
    return dict(state)


def load_fit_state(fit: FitState, state: State, allow_change: bool) -> None:
    """Go on from a state of the fit; hidden layers of another width are called what the estimator calls them."""
    layout = take(take(state, "fit.step", dict), "step.layout", dict)
    there, here = take(layout, "step.layout.sizes", list), list(fit.step.net.sizes)
    check_same(there[1:-1], here[1:-1], "hidden_layer_sizes")
    fit.load_state_dict(state, allow_change)


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


def fit_lbfgs(e: Any, network: FittedNetwork, rows: Rows, callbacks: SklearnCallbacks) -> None:
    """Minimize J from the network's parameters, and leave the minimum there; ``n_iter_`` and ``loss_`` are written.

    Raises
    ------
    NonFiniteError
        If it ends where the cost or a parameter is not finite.
    """
    options = {"maxfun": e.max_fun, "maxiter": e.max_iter, "gtol": e.tol}
    options |= _get_additional_lbfgs_options_dict("iprint", 1 if e.verbose is True or e.verbose >= 1 else -1)
    begun = time.perf_counter()

    def on_iteration(k: int, cost: float) -> bool:
        with device_state(e).pause(None):
            for callback in e.callbacks:
                callback.on_epoch(Epoch(k, k, cost, 1.0, {}, time.perf_counter() - begun))
        stops = callbacks.end_epoch()
        if not stops:
            callbacks.begin_epoch()
        return stops

    with StartedCallbacks(list(e.callbacks), e.max_iter):
        callbacks.begin_epoch()
        objective = Objective(network.step, dense(rows.X), rows.Y, rows.weights)
        found = minimize_cost(objective, options, on_iteration if e.callbacks or callbacks.root is not None else None)
        e.loss_, e.n_iter_ = found.cost, found.iterations
        if found.interrupted:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        elif found.result is not None:
            e.n_iter_ = _check_optimize_result("lbfgs", found.result, e.max_iter)
    if not found.finite:
        raise NonFiniteError(f"the cost became {found.cost} after iteration {found.iterations}")


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
        return batches_over(network.net, (rows.X, rows.Y, rows.weights), **how, copy=incremental), None
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
        with followed(owner, fits[0], take_state), left_by_error(fits[0].step.ranks):
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
