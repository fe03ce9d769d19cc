"""What MLPClassifier and MLPRegressor share: fit, partial_fit, the network behind them."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, validate_data

from ..errors import BackpropError, ConfigError, NonFiniteError
from ..maths.losses import Loss
from ..training.loop import ROWS_CHECKED
from ..training.validation import HeldOut, Validation
from . import tabular
from .arrays import on_host, origin_of
from .fit import StochasticFit, advance
from .fitted import Fitted
from .fitted_network import LIVE, Plan, SolverState, batch_rows, build_net, fitted_of, plan_for, runtime_of
from .given import check_given
from .initialization import sklearn_start
from .lbfgs import fit_lbfgs
from .params import SKLEARN_START, hidden_sizes, invalid, is_logistic, per_layer
from .rows import Rows, dense, split_off
from .sklearn_callbacks import Listeners

FLOATS = (np.float64, np.float32)


@contextlib.contextmanager
def diverging(cure: str) -> Iterator[None]:
    """Where a fit may diverge: scikit-learn's words for it, and what would help."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            f"preprocessed. ({error}; {cure})"
        ) from None


class MultilayerPerceptron(CallbackSupportMixin, Fitted):
    """Base of both estimators. Fitted attributes are scikit-learn's, on the host; the network is kept beside them."""

    # -- fit ---------------------------------------------------------------------------------------------------------

    def _check_solver(self) -> bool:
        if self.preset is not None:
            raise AttributeError(f"partial_fit is not available with preset={self.preset!r}, which fits several nets.")
        if self.solver == "lbfgs":
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, incremental: bool = False, held_out: Any = (None, None, None)
    ) -> None:
        hidden = hidden_sizes(self)
        check_given(self, self.solver if self.preset is None else tabular.settings_for(self, 1)["solver"])
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        origin, y, sample_weight = origin_of(X), on_host(y), on_host(sample_weight)
        checked, Y = self._encode(on_host(X), y, first=first, incremental=incremental)
        self._fitted_on = origin.name
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, checked)
        by_class = self._class_weights(Y, incremental)
        weights = self._row_weights(Y, by_class, sample_weight)
        if weights is not None and not weights.any():
            raise ValueError("Every row has weight 0; class_weight and sample_weight must leave some of the rows.")
        rows = Rows(checked, Y, None if weights is None else weights.reshape(-1, 1))
        loss, n_outputs = self._loss_of(Y)
        sizes = (checked.shape[1], *hidden, n_outputs)
        if not first and self.preset is None:
            self._check_sizes(sizes)
        self.n_outputs_ = n_outputs
        self._random_state = check_random_state(self.random_state)
        if self.preset is not None:
            held = self._held_out(by_class, *held_out)
            with diverging("lower learning_rate_init, or set clip_norm"):
                tabular.fit_members(self, rows, loss, held)
            return
        if hasattr(self, "members_"):
            del self.members_
        if first:
            self._initialize(sizes, loss, str(checked.dtype))
        listeners = Listeners(self, X, y, sample_weight, self.max_iter)
        listeners.attributes = self._reconstruction
        if self.solver == "lbfgs":
            if held_out[0] is not None:
                raise ValueError("solver='lbfgs' follows no validation set; leave X_val and y_val out.")
            with diverging("scale the features and the target"):
                self._fit_lbfgs(rows, plan_for(self, sizes, loss, self.dtype or "float64", len(Y)), listeners)
        else:
            held = self._held_out(by_class, *held_out)
            with diverging("lower learning_rate_init, or set clip_norm"):
                self._fit_stochastic(rows, sizes, loss, listeners, incremental, held)
        listeners.finish()
        if not incremental:  # which holds the rows; predictions need the network alone
            runtime_of(self).engine = None

    def _initialize(self, sizes: tuple[int, ...], loss: Loss, dtype: str) -> None:
        """Fitted attributes of a first fit, and initial weights in scikit-learn's order of draws."""
        self.n_iter_, self.t_, self.n_layers_ = 0, 0, len(sizes)
        self.out_activation_ = {"sigmoid": "logistic", "exponential": "exp"}.get(loss.link_name, loss.link_name)
        n_hidden = len(sizes) - 2
        try:
            hidden = [is_logistic(a) for a in per_layer(self.activation, n_hidden)]
        except BackpropError as error:
            raise invalid(self, "activation", error) from error
        output = hidden[-1] if hidden else self.activation == "logistic"
        self.coefs_, self.intercepts_ = sklearn_start(self._random_state, sizes, [*hidden, output], dtype)
        if hasattr(self, "norms_"):
            del self.norms_
        if self.initializer != SKLEARN_START or np.any(self.batch_norm):
            named = self.initializer != SKLEARN_START
            plan, seed = plan_for(self, sizes, loss, dtype, 1), self._draw_seed() if named else 0
            start = fitted_of(build_net(plan, seed, self.initializer if named else "zeros").parameters())
            self._hold(start if named else {"norms_": start["norms_"]})
        self._seed = self._draw_seed() if np.any(self.dropout) else 0
        record = self._blank_record()
        for name in record:  # of an earlier fit
            self.__dict__.pop(name, None)
        if self.solver != "lbfgs":
            self._hold(record)

    def _blank_record(self) -> dict[str, Any]:
        """The attributes that a stochastic solver writes epoch by epoch, as they are before the first."""
        stopping = bool(self.early_stopping)
        return {
            "loss_curve_": [],
            "_no_improvement_count": 0,
            "validation_scores_": [] if stopping else None,
            "best_validation_score_": -math.inf if stopping else None,
            "best_loss_": None if stopping else math.inf,
            "_best": self._held(),
            "validation_loss_curve_": [],
            "validation_metric_curves_": {name: [] for name in self.validation_metrics},
        }

    def _check_sizes(self, sizes: tuple[int, ...]) -> None:
        """That fitted weights are those of a network of these sizes."""
        fitted = tuple(c.shape[1] for c in self.coefs_)
        if fitted[:-1] != sizes[1:-1]:
            reason = (
                f"weights of {fitted[:-1]} were fitted, which warm_start and partial_fit continue; got {sizes[1:-1]}"
            )
            raise invalid(self, "hidden_layer_sizes", reason)
        if fitted[-1] != sizes[-1]:
            raise ValueError(f"y must have {fitted[-1]} outputs, as in the fit that is continued; got {sizes[-1]}.")

    def _draw_seed(self) -> int:
        return int(self._random_state.randint(0, 2**31 - 1))

    def _fit_lbfgs(self, rows: Rows, plan: Plan, listeners: Listeners) -> None:
        """In float64, as scikit-learn's, unless ``dtype`` says otherwise."""
        for name in ("dropout", "batch_norm"):
            if any(getattr(plan, name)):
                raise invalid(self, name, f"solver='lbfgs' needs a loss that stays the same; leave {name} out")
        runtime = runtime_of(self)
        engine = runtime.fitting = runtime.engine_for(self, plan, 0)
        try:
            engine.load((self.coefs_, self.intercepts_), {})
            try:
                fit_lbfgs(self, engine, dense(rows.X), rows.Y, rows.weights, listeners)
            finally:
                self._hold(engine.fitted())
        finally:
            runtime.fitting = None

    def _fit_stochastic(
        self,
        rows: Rows,
        sizes: tuple[int, ...],
        loss: Loss,
        listeners: Listeners,
        incremental: bool,
        held_out: HeldOut | None,
    ) -> None:
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        train, validation = self._divide(rows, held_out, incremental)
        n = train.X.shape[0]
        if self.batch_size != "auto" and self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=5
            )
        # Where some batch would have no row with a weight, or one whose statistics are those of few.
        if train.n_weighted < -(-n // batch_rows(self, n)) or np.any(self.batch_norm):
            train = train.weighted()
        plan = plan_for(self, sizes, loss, str(self.coefs_[0].dtype), len(train.Y))
        for name, value in self._blank_record().items():  # none after lbfgs, or where weights came from elsewhere
            self.__dict__.setdefault(name, value)
        state: SolverState | None = vars(self).get("_optimizer") if incremental else None
        if state is None or not state.suits(plan.optimizer):
            state = SolverState(plan.optimizer.learning_rate)
        self._optimizer = state
        fit = self._open(plan, validation, listeners, incremental=incremental)
        try:
            epochs = fit.engine.epochs(train.X, train.Y, train.weights, self.shuffle, again=incremental)
            fit.begin(epochs.batches)
            advance([fit], lambda _, epoch: [(epochs.run(epoch), fit.judge())])
            if not incremental:
                fit.engine.check_outputs(dense(train.X[:ROWS_CHECKED]))
        except NonFiniteError as error:
            if not fit.engine.outputs_are_finite(dense(train.X[:ROWS_CHECKED])):  # then those of before the fit
                fit.engine.load((self.coefs_, self.intercepts_), vars(self).get("norms_", {}))
            if not self.early_stopping:
                raise
            fit.diverged(error)
        finally:
            self._close(fit)

    def _open(
        self, plan: Plan, validation: HeldOut | None, listeners: Listeners, *, beside: Any = None, **how: Any
    ) -> StochasticFit:
        """The start on the device; until :meth:`_close`, the network that is trained is this estimator's."""
        runtime = runtime_of(self)
        engine = runtime.engine_for(self, plan, getattr(self, "_seed", 0), beside)
        live = self._optimizer.slots.pop(LIVE, None)
        if live is None:
            engine.load((self.coefs_, self.intercepts_), vars(self).get("norms_", {}))
        else:
            engine.net.set_parameters(live)
        judge = None
        if validation is not None:
            one_class = is_classifier(self) and len(self.classes_) == 1 and self.n_outputs_ == 1
            try:
                judge = Validation(engine.net, validation, tuple(self.validation_metrics), one_class)
            except ConfigError as error:
                raise invalid(self, "validation_metrics", error) from error
        runtime.fitting = engine
        return StochasticFit(self, engine, self._optimizer, judge, listeners, **how)

    def _close(self, fit: StochasticFit) -> None:
        """Weights back to the host: those of the best epoch with ``early_stopping``, else the last."""
        engine = fit.engine
        if fit.incremental and engine.step.optimizer.average:
            self._optimizer.slots[LIVE] = engine.net.parameters()
        with engine.step.averaged():
            self._hold(engine.fitted())
        runtime_of(self).fitting = None
        if self.early_stopping:
            if fit.best is not None:
                self._best = fitted_of(fit.best)
            self._hold(self._best)

    def _hold(self, attributes: dict[str, Any]) -> None:
        """Set fitted attributes."""
        for name, value in attributes.items():
            setattr(self, name, value)

    def _held(self) -> dict[str, Any]:
        """The fitted attributes that hold parameters."""
        return {name: vars(self)[name] for name in ("coefs_", "intercepts_", "norms_") if name in vars(self)}

    def _divide(self, rows: Rows, held_out: HeldOut | None, incremental: bool) -> tuple[Rows, HeldOut | None]:
        """Rows to train on, and those held out: given to ``fit``, or split off for ``early_stopping``."""
        if held_out is not None and self.early_stopping and len(held_out.weighted) < 2:
            raise ValueError(
                "X_val is too small for early_stopping: it needs at least two rows that have a weight. Pass more rows."
            )
        if held_out is None and (self.early_stopping or hasattr(self.validation_fraction, "split")):
            rows, held_out = split_off(self, rows)
        if held_out is None and self.validation_metrics and not incremental:
            reason = "they are of a validation set: set early_stopping=True or pass X_val, or leave them out"
            raise invalid(self, "validation_metrics", reason)
        if held_out is not None and self.early_stopping and not is_classifier(self):
            Y = held_out.weighted
            if np.ptp(rows.Y, axis=0).any() and not np.ptp(Y, axis=0).any():
                warnings.warn(
                    "The targets of the validation set are all the same: their R2, which early_stopping looks at, "
                    "tells no epoch from another, and the first is kept. Hold out rows whose targets differ.",
                    stacklevel=7,
                )
        return rows, held_out

    def _held_out(self, by_class: Any, X_val: Any, y_val: Any, sample_weight_val: Any) -> HeldOut | None:
        """A validation set that was given to ``fit``, checked and weighted as the training rows are."""
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val go together: pass both, or neither.")
        if X_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val goes with X_val and y_val: pass all three, or leave it out.")
            return None
        options = {"accept_sparse": ["csr", "csc"], "multi_output": True, "dtype": self.dtype or FLOATS}
        weights, name = sample_weight_val, "X_val, y_val"
        try:
            X, y = validate_data(self, on_host(X_val), on_host(y_val), **options, reset=False)
            if sample_weight_val is not None:
                name = "sample_weight_val"
                weights = _check_sample_weight(on_host(sample_weight_val), X, ensure_non_negative=True)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        codes = self._codes(y, "y_val")
        Y, weights = self._one_hot(codes), self._row_weights(codes, by_class, weights)
        if Y.shape[1] != self.n_outputs_:
            raise ValueError(f"y_val has {Y.shape[1]} outputs and y {self.n_outputs_}.")
        return HeldOut(dense(X), Y, None if weights is None else weights.reshape(-1, 1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags
