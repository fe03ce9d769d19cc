"""MLPRegressor: scikit-learn's, on any device."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.callback import with_callbacks
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from ..maths.losses import Loss, get_loss
from .base import MultilayerPerceptron
from .fit import fit
from .fitted_network import exclusive, one_fit
from .inputs import FLOATS, in_kind, on_host, origin_of
from .params import REGRESSOR_CONSTRAINTS, invalid, read, store


class MLPRegressor(RegressorMixin, MultilayerPerceptron):
    """Multi-layer perceptron regressor with scikit-learn's parameters, attributes and meaning.

    Parameters
    ----------
    loss : str, dict or Loss, default "squared_error"
        scikit-learn's ``"squared_error"`` and ``"poisson"`` (y >= 0, predictions e^Z), or any loss of ``maths.losses``
        on values: ``"absolute_error"``, ``{"name": "huber", "threshold": 0.5}``, or
        ``{"name": "quantile", "quantiles": [0.1, 0.5, 0.9]}``, which predicts them all. Outputs are averaged, in
        ``"poisson"`` summed, as scikit-learn reports them.
    hidden_layer_sizes ... max_fun
        As in ``sklearn.neural_network.MLPRegressor``, with the same defaults; what they take beyond is said at
        :class:`~backprop_gpu.estimators.classifier.MLPClassifier`, as are ``device`` to ``n_members``.
    loss_scaling : {"derivative", "sklearn"}, default "derivative"
        With K outputs scikit-learn follows K times the derivative of the loss that it reports, which moves the balance
        with ``alpha`` and ``tol`` (scikit-learn#8349). ``"derivative"`` follows the derivative; ``"sklearn"`` does as
        scikit-learn does. With one output there is no difference.

    Attributes
    ----------
    coefs_, intercepts_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, t_, n_iter_,
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        scikit-learn's, NumPy arrays whatever the device.
    validation_loss_curve_, validation_metric_curves_
        With a validation set: its loss without penalty, and {metric: list}, one for each epoch.

    Raises
    ------
    InvalidParameterError, ValueError
        scikit-learn's kinds, naming the parameter or what is wrong with the data.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = REGRESSOR_CONSTRAINTS

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: Any = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        device: str = "auto",
        dtype: str | None = None,
        kernels: str = "auto",
        loss_scaling: str = "derivative",
        initializer: str = "sklearn",
        dropout: Any = 0.0,
        batch_norm: Any = False,
        batch_ensemble: int = 1,
        weight_average: float = 0.0,
        clip_norm: float | None = None,
        validation_metrics: Any = (),
        callbacks: Any = (),
        preset: str | None = None,
        n_members: int = 4,
    ) -> None:
        store(self, locals())

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        resume: Any = None,
        allow_change: bool = False,
    ) -> MLPRegressor:
        """Fit to X (n_samples, n_features) and values y (n_samples,) or (n_samples, n_outputs).

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional
        X_val, y_val, sample_weight_val : optional
            A validation set of one's own: followed every epoch, and what ``early_stopping`` looks at.
        resume : path or dict, optional
            A checkpoint of a fit with the same parameters and data (:class:`~backprop_gpu.Checkpoint`), or a folder of
            them; or what :meth:`state_dict` gave. The fit goes on from there, and ends as if it had not been
            interrupted, bit for bit. Not for ``solver="lbfgs"``.
        allow_change : bool, default False
            Take a state of other parameters, such as a larger ``max_iter``, or of other rows.
        """
        with one_fit(self):
            fit(
                *(self, X, y, sample_weight),
                held_out=(X_val, y_val, sample_weight_val),
                resume=resume,
                allow_change=allow_change,
            )
        return self

    @available_if(lambda est: est._check_solver())
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch over the given rows."""
        with one_fit(self):
            fit(self, X, y, sample_weight, incremental=True)
        return self

    # -- targets -----------------------------------------------------------------------------------------------------

    def _encode(self, X: Any, y: Any, *, first: bool, incremental: bool) -> tuple[Any, np.ndarray]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=self.dtype or FLOATS,
            ensure_all_finite=self._finite(),
            reset=first,
        )
        return X, self._codes(y, "y")

    def _codes(self, y: Any, name: str) -> np.ndarray:
        """Values (n, k), floats."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        Y = np.asarray(y)
        Y = (Y if Y.dtype.kind == "f" else Y.astype(np.float64)).reshape(len(Y), -1)
        loss = read(self, "loss", get_loss)
        Y = np.repeat(Y, loss.per_target, axis=1)
        if loss.name == "poisson" and (Y < 0).any():
            raise ValueError(f"{name} must be at least 0 for loss='poisson', got {Y.min()}.")
        return Y

    def _loss_of(self, Y: np.ndarray) -> tuple[Loss, int]:
        return self._fitted_loss()[0], Y.shape[1]

    def _fitted_loss(self) -> tuple[Loss, int]:
        loss = read(self, "loss", get_loss)
        if loss.labels != "values":
            raise invalid(self, "loss", f"it must be a loss on values, got {loss.name!r}")
        return loss, getattr(self, "n_outputs_", 1)

    # -- prediction --------------------------------------------------------------------------------------------------

    @exclusive
    def predict(self, X: Any) -> Any:
        """Values (n_samples,) or (n_samples, n_outputs), in the namespace of X.

        With several quantiles (n_samples, n_quantiles), and (n_samples, n_outputs, n_quantiles) for several outputs.
        """
        AL, each = self._outputs(X, "predict"), read(self, "loss", get_loss).per_target
        if each > 1 and AL.shape[1] > each:
            AL = AL.reshape(len(AL), -1, each)
        return in_kind(AL.ravel() if AL.shape[1] == 1 else AL, origin_of(X))

    @exclusive
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R squared of the predictions, with several quantiles of the one nearest to the median."""
        loss = read(self, "loss", get_loss)
        if loss.per_target == 1:
            return float(super().score(X, y, sample_weight))
        return float(r2_score(on_host(y), loss.point(self._outputs(X, "score")), sample_weight=on_host(sample_weight)))
