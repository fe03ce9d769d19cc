"""What MLPClassifier and MLPRegressor share: fit, partial_fit, the network behind them."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..errors import BackpropError
from ..maths.losses import Loss
from ..network.dense_net import DenseNet
from . import files, interop, tabular
from .arrays import check_origin, on_host, origin_of
from .engine import Engine, Plan, SolverState, as_named, as_parameters, engine_for, plan_for
from .lbfgs import Objective, fit_lbfgs
from .listening import Listeners
from .params import SKLEARN_START, activations_of, hidden_sizes, invalid, is_logistic, per_layer, read
from .rows import Rows, dense, split_off
from .start import Parameters, sklearn_start
from .stochastic import StochasticFit
from .validation import HeldOut, Validation

FLOATS = (np.float64, np.float32)


class MultilayerPerceptron(CallbackSupportMixin, BaseEstimator):
    """Base of both estimators. Fitted attributes are scikit-learn's, on the host; the network is kept beside them."""

    loss: Any

    # -- what a subclass says of its targets -------------------------------------------------------------------------

    def _encode(self, X: Any, y: Any, *, first: bool, incremental: bool) -> tuple[Any, np.ndarray]:
        """Checked X, and the targets Y (n, k) as the loss takes them; ``classes_`` are settled here."""
        raise NotImplementedError

    def _codes(self, y: Any, name: str) -> np.ndarray:
        """Targets y, called ``name``, as the loss takes them."""
        raise NotImplementedError

    def _loss_of(self, Y: np.ndarray) -> tuple[Loss, int]:
        """The loss and the number of outputs for these targets."""
        raise NotImplementedError

    def _row_weights(self, y: Any, sample_weight: Any, incremental: bool) -> Any:
        """The weights of the rows, class weights included."""
        return sample_weight

    def _stratify(self, Y: np.ndarray) -> np.ndarray | None:
        """What a validation split keeps the shares of."""
        return None

    def _one_hot(self, Y: np.ndarray) -> np.ndarray:
        """Targets with a column for each output."""
        return Y

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
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        origin, y, sample_weight = origin_of(X), on_host(y), on_host(sample_weight)
        checked, Y = self._encode(on_host(X), y, first=first, incremental=incremental)
        self._fitted_on = origin.name
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, checked)
        weights = self._row_weights(y, sample_weight, incremental)
        rows = Rows(checked, Y, None if weights is None else weights.reshape(-1, 1))
        loss, self.n_outputs_ = self._loss_of(Y)
        sizes = (checked.shape[1], *hidden, self.n_outputs_)
        self._random_state = check_random_state(self.random_state)
        if self.preset is not None:
            tabular.fit_members(self, rows, loss, self._held_out(*held_out))
            return
        if hasattr(self, "members_"):
            del self.members_
        if first:
            self._initialize(sizes, loss, str(checked.dtype))
        listeners = Listeners(self, X, y, sample_weight, 0 if self.solver == "lbfgs" else self.max_iter)
        listeners.attributes = self._reconstruction
        if self.solver == "lbfgs":
            self._fit_lbfgs(rows, plan_for(self, sizes, loss, self._lbfgs_dtype(), len(Y)))
        else:
            self._fit_stochastic(rows, sizes, loss, listeners, incremental, self._held_out(*held_out))
        if not all(np.isfinite(p).all() for p in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )
        listeners.finish()

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
        if self.initializer != SKLEARN_START:
            seed = self._draw_seed()
            plan = plan_for(self, sizes, loss, dtype, 1)
            self.coefs_, self.intercepts_ = Engine(plan, seed, self.initializer).parameters()
        self._seed = self._draw_seed() if np.any(self.dropout) else 0
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            stopping = bool(self.early_stopping)
            self.validation_scores_: list[float] | None = [] if stopping else None
            self.best_validation_score_: float | None = -math.inf if stopping else None
            self.best_loss_: float | None = None if stopping else math.inf
            self.validation_loss_curve_: list[float] = []
            self.validation_metric_curves_: dict[str, list[float]] = {name: [] for name in self.validation_metrics}

    def _draw_seed(self) -> int:
        return int(self._random_state.randint(0, 2**31 - 1))

    def _lbfgs_dtype(self) -> str:
        """L-BFGS computes in float64, as scikit-learn's does, unless ``dtype`` says otherwise."""
        return self.dtype or "float64"

    def _fit_lbfgs(self, rows: Rows, plan: Plan) -> None:
        engine = engine_for(self, plan, getattr(self, "_seed", 0))
        engine.load((self.coefs_, self.intercepts_))
        fit_lbfgs(self, engine, dense(rows.X), rows.Y, rows.weights)
        self.coefs_, self.intercepts_ = engine.parameters()

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
        train, validation = self._divide(rows, held_out)
        n = train.X.shape[0]
        if self.batch_size != "auto" and self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=5
            )
        plan = plan_for(self, sizes, loss, str(self.coefs_[0].dtype), n)
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = SolverState(plan.optimizer.learning_rate)
        engine = engine_for(self, plan, getattr(self, "_seed", 0))
        engine.load((self.coefs_, self.intercepts_))
        judge = None
        if validation is not None:
            try:
                judge = Validation(engine.net, validation, tuple(self.validation_metrics))
            except BackpropError as error:
                raise invalid(self, "validation_metrics", error) from error
        self._current = engine
        fit = StochasticFit(self, engine, self._optimizer, judge, listeners, incremental=incremental)
        try:
            fit.run(train.X, train.Y, train.weights)
        finally:
            self.coefs_, self.intercepts_ = engine.parameters()
            del self._current
        if self.early_stopping:
            if fit.best is not None:
                self._best_coefs, self._best_intercepts = as_parameters(fit.best)
            elif not hasattr(self, "_best_coefs"):
                self._best_coefs, self._best_intercepts = self.coefs_, self.intercepts_
            self.coefs_, self.intercepts_ = self._best_coefs, self._best_intercepts

    def _divide(self, rows: Rows, held_out: HeldOut | None) -> tuple[Rows, HeldOut | None]:
        """Rows to train on, and those held out: given to ``fit``, or split off for ``early_stopping``."""
        if held_out is not None:
            return rows, held_out
        if self.early_stopping or hasattr(self.validation_fraction, "split"):
            return split_off(self, rows)
        return rows, None

    def _held_out(self, X_val: Any, y_val: Any, sample_weight_val: Any) -> HeldOut | None:
        """A validation set that was given to ``fit``, checked as the training rows are."""
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val go together: pass both, or neither.")
        if X_val is None:
            return None
        options = {"accept_sparse": ["csr", "csc"], "multi_output": True, "dtype": self.dtype or FLOATS}
        X, y = validate_data(self, on_host(X_val), on_host(y_val), **options, reset=False)
        weights = None
        if sample_weight_val is not None:
            weights = _check_sample_weight(on_host(sample_weight_val), X).reshape(-1, 1)
        Y = self._one_hot(self._codes(y, "y_val"))
        if Y.shape[1] != self.n_outputs_:
            raise ValueError(f"y_val has {Y.shape[1]} outputs and y {self.n_outputs_}.")
        return HeldOut(dense(X), Y, weights)

    # -- the network -------------------------------------------------------------------------------------------------

    def network(self) -> DenseNet:
        """The network with the fitted weights on the estimator's device; examples are rows at its own door.

        Raises
        ------
        NotFittedError
        """
        check_is_fitted(self)
        tabular.refuse(self, "network()")
        current: Engine | None = vars(self).get("_current")
        if current is not None:
            return current.net
        sizes = (self.coefs_[0].shape[0], *(c.shape[1] for c in self.coefs_))
        kept = vars(self).get("_engine")
        dtype = str(self.coefs_[0].dtype)
        activations = read(self, "activation", lambda a: activations_of(a, len(sizes) - 2))
        same = isinstance(kept, Engine) and kept.fits(sizes, activations, dtype)
        if not isinstance(kept, Engine) or not same:
            loss, _ = self._fitted_loss()
            kept = engine_for(self, plan_for(self, sizes, loss, dtype, 1), getattr(self, "_seed", 0))
        kept.net.set_parameters(as_named((self.coefs_, self.intercepts_)))
        return kept.net

    def _fitted_loss(self) -> tuple[Loss, int]:
        """The loss that the fitted attributes imply, and the number of outputs."""
        raise NotImplementedError

    def _outputs(self, X: Any, method: str) -> np.ndarray:
        """AL (n_samples, n_outputs) on the host."""
        check_is_fitted(self)
        check_origin(origin_of(X), getattr(self, "_fitted_on", "numpy"), f"{type(self).__name__}.{method}")
        X = validate_data(self, on_host(X), accept_sparse=["csr", "csc"], reset=False)
        return self._forward(X)

    def _forward(self, X: Any) -> np.ndarray:
        if "members_" in vars(self):
            return tabular.average(self, X)
        net = self.network()
        if not issparse(X):
            return net.predict_proba(X)
        X = X.tocsr()
        blocks = [net.predict_proba(X[i : i + 2048].toarray()) for i in range(0, X.shape[0], 2048)]
        return np.concatenate(blocks)

    def _reconstruction(self) -> dict[str, Any]:
        """Fitted attributes of an estimator as if the fit had ended now, for scikit-learn's callbacks."""
        fitted = {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("__")}
        current: Engine | None = vars(self).get("_current")
        if current is not None:
            fitted["coefs_"], fitted["intercepts_"] = current.parameters()
        return fitted

    def network_targets(self, y: Any) -> np.ndarray:
        """Targets as :meth:`network` takes them (n_samples, k): class indices, 0/1 labels, or values."""
        check_is_fitted(self)
        return self._codes(np.asarray(on_host(y)), "y")

    def loss_and_gradient(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[float, Parameters]:
        """(J, (coef_grads, intercept_grads)) at the fitted weights, all rows as one batch, without dropout.

        J is the loss as a fit reports it, penalty included; the gradient is the one that training follows.
        """
        check_is_fitted(self)
        tabular.refuse(self, "loss_and_gradient()")
        options = {"accept_sparse": ["csr", "csc"], "multi_output": True, "dtype": self.coefs_[0].dtype}
        X, y = validate_data(self, on_host(X), on_host(y), **options, reset=False)
        weights = None if sample_weight is None else _check_sample_weight(on_host(sample_weight), X)
        weights = self._row_weights(y, weights, False)
        sizes = (self.coefs_[0].shape[0], *(c.shape[1] for c in self.coefs_))
        plan = plan_for(self, sizes, self._fitted_loss()[0], str(self.coefs_[0].dtype), X.shape[0])
        engine = Engine(replace(plan, dropout=(0.0,) * (len(sizes) - 2)), 0)
        engine.load((self.coefs_, self.intercepts_))
        w = None if weights is None else weights.reshape(-1, 1)
        function = Objective(engine, dense(X), self._codes(y, "y"), w)
        J, grad = function(engine.net.backend.to_host(engine.net.params.theta))
        return J, as_parameters(engine.net.params.named(grad))

    # -- other forms -------------------------------------------------------------------------------------------------

    @classmethod
    def from_sklearn(cls, fitted: Any, **changes: Any) -> Any:
        """This class's estimator from scikit-learn's fitted one of the same name; ``changes`` set other parameters.

        Weights come over bit for bit, the optimizer's state too; a regressor keeps scikit-learn's ``loss_scaling``.
        """
        return interop.from_sklearn(cls, fitted, changes)

    def to_sklearn(self) -> Any:
        """scikit-learn's fitted estimator of the same name, with the same weights bit for bit."""
        tabular.refuse(self, "to_sklearn()")
        return interop.to_sklearn(self)

    def to_safetensors(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file."""
        files.save(self, path)

    @classmethod
    def from_safetensors(cls, path: str | os.PathLike[str], **changes: Any) -> Any:
        """Read what :meth:`to_safetensors` wrote; ``changes`` set other parameters, such as ``device="cpu"``."""
        return files.load(cls, path, changes)

    # -- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network: what is pickled lives on the host, and loads where there is no device."""
        state = dict(super().__getstate__())
        state.pop("_engine", None)
        state.pop("_current", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags
