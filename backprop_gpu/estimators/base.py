"""What MLPClassifier and MLPRegressor share: the network behind them, its outputs, and the other forms they take."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..maths.losses import Loss
from ..network.custom import Custom
from ..network.dense_net import BLOCK_ROWS, DenseNet
from ..network.state import State
from ..training.lbfgs import Objective, get_theta
from ..training.validation import ValidationSet
from . import conversion, tabular
from .fitted_network import (
    FittedNetwork,
    Parameters,
    as_named,
    as_parameters,
    build_net,
    device_state,
    exclusive,
    plan_for,
    sizes_of,
)
from .inputs import Rows, check_origin, dense, on_host, origin_of


class MultilayerPerceptron(CallbackSupportMixin, BaseEstimator):
    """Base of both estimators. Fitted attributes are scikit-learn's, on the host; the network is kept beside them."""

    solver: Any
    preset: Any
    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    activation: Any
    dropout: Any
    batch_norm: Any
    batch_ensemble: int
    loss: Any
    device: str
    kernels: str

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

    def _fitted_loss(self) -> tuple[Loss, int]:
        """The loss that the fitted attributes imply, and the number of outputs."""
        raise NotImplementedError

    def _class_weights(self, Y: np.ndarray, incremental: bool) -> Any:
        """What ``class_weight`` means for training rows of targets Y, as :meth:`_row_weights` takes it."""
        return None

    def _row_weights(self, Y: np.ndarray, by_class: Any, sample_weight: Any) -> Any:
        """The weights of rows of targets Y (n,) or None, class weights included."""
        return sample_weight

    def _stratify(self, Y: np.ndarray) -> np.ndarray | None:
        """What a validation split keeps the shares of."""
        return None

    def _one_hot(self, Y: np.ndarray) -> np.ndarray:
        """Targets with a column for each output."""
        return Y

    # -- the fit -----------------------------------------------------------------------------------------------------

    def _check_solver(self) -> bool:
        if self.preset is not None:
            raise AttributeError(f"partial_fit is not available with preset={self.preset!r}, which fits several nets.")
        if self.solver == "lbfgs":
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def _finite(self) -> bool | str:
        """What scikit-learn checks of X: gaps are for the preset, which has a place for them."""
        return True if self.preset is None else "allow-nan"

    def _solver(self) -> Any:
        """What a fit trains with."""
        return self.solver if self.preset is None else tabular.settings_for(self, 1)["solver"]

    def _read_columns(self, X: Any, held_out: tuple[Any, Any, Any]) -> tuple[Any, tuple[Any, Any, Any]]:
        """Data frames as ``preset`` reads them, numbers for texts and dates; anything else as it is."""
        self.__dict__.pop("columns_", None)
        return (X, held_out) if self.preset is None else tabular.read_columns(self, X, held_out)

    def _fit_preset(
        self, rows: Rows, loss: Loss, validation: ValidationSet | None, resume: Any, allow_change: bool
    ) -> None:
        """Fit to rows by ``preset``."""
        tabular.fit_members(self, rows, loss, validation, resume, allow_change)

    def state_dict(self) -> State:
        """Where the fit stands, for ``fit(resume=...)``: to be called by a callback, in ``on_epoch`` or ``on_steps``.

        A tree of plain Python values and NumPy arrays, all copies: the weights and the optimizer's vectors, the place
        of the next batch, the attributes so far. It names no device and holds no data. A callback may call it as
        ``self.trainer.state_dict()``, and :class:`~backprop_gpu.Checkpoint` writes it to files.

        Raises
        ------
        ConfigError
            Anywhere else, where a fit is not between two steps, or there is none; ``solver="lbfgs"`` has none.
        """
        return device_state(self).state_dict()

    # -- the network -------------------------------------------------------------------------------------------------

    @exclusive
    def network(self) -> DenseNet:
        """The network with the fitted weights on the estimator's device; examples are rows at its own door.

        Raises
        ------
        NotFittedError
        """
        check_is_fitted(self)
        tabular.refuse(self, "network()")
        return self._loaded()

    def _loaded(self) -> DenseNet:
        device = device_state(self)
        if device.fitting is not None:
            return device.fitting.net
        if "coefs_" not in vars(self):  # as while a preset is fitted
            check_is_fitted(self, "coefs_")
        sizes, dtype = sizes_of(self), self.coefs_[0].dtype
        given = (
            self.activation,
            self.dropout,
            self.batch_norm,
            self.batch_ensemble,
            self.loss,
            self.device,
            self.kernels,
        )
        key = (sizes, dtype, *(tuple(x) if isinstance(x, list) else x for x in given))

        def make() -> DenseNet:
            plan = plan_for(self, sizes, self._fitted_loss()[0], str(dtype), 1)
            return build_net(plan, getattr(self, "_seed", 0))

        net = device.network_to_predict(key, make)
        net.set_parameters(as_named((self.coefs_, self.intercepts_)) | vars(self).get("norms_", {}))
        return net

    def _outputs(self, X: Any, method: str) -> np.ndarray:
        """AL (n_samples, n_outputs) on the host."""
        check_is_fitted(self)
        check_origin(origin_of(X), getattr(self, "_fitted_on", "numpy"), f"{type(self).__name__}.{method}")
        if "columns_" in vars(self):
            return self._forward(self.columns_.codes(X))
        X = validate_data(self, on_host(X), accept_sparse=["csr", "csc"], ensure_all_finite=self._finite(), reset=False)
        return self._forward(X)

    def _forward(self, X: Any) -> np.ndarray:
        if "members_" in vars(self):
            return tabular.average(self, X)
        net = self._loaded()
        if not issparse(X):
            return net.predict_proba(X)
        X = X.tocsr()
        blocks = [net.predict_proba(X[i : i + BLOCK_ROWS].toarray()) for i in range(0, X.shape[0], BLOCK_ROWS)]
        return np.concatenate(blocks)

    def _held(self) -> dict[str, Any]:
        """The fitted attributes that hold parameters."""
        return {name: vars(self)[name] for name in ("coefs_", "intercepts_", "norms_") if name in vars(self)}

    def _reconstruction(self) -> dict[str, Any]:
        """Fitted attributes of an estimator as if the fit had ended now, for scikit-learn's callbacks."""
        fitted = {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("__")}
        fitting = device_state(self).fitting
        if fitting is not None:
            with fitting.step.averaged():
                fitted |= fitting.fitted()
        return fitted

    @exclusive
    def network_targets(self, y: Any) -> np.ndarray:
        """Targets as :meth:`network` takes them (n_samples, k): class indices, 0/1 labels, or values."""
        check_is_fitted(self)
        return self._codes(np.asarray(on_host(y)), "y")

    @exclusive
    def loss_and_gradient(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[float, Parameters]:
        """(J, (coef_grads, intercept_grads)) at the fitted weights, all rows as one batch, without dropout.

        J is the loss as a fit reports it, penalty included; the gradient is the one that training follows.
        """
        check_is_fitted(self)
        tabular.refuse(self, "loss_and_gradient()")
        options = {"accept_sparse": ["csr", "csc"], "multi_output": True, "dtype": self.coefs_[0].dtype}
        X, y = validate_data(self, on_host(X), on_host(y), **options, reset=False)
        weights = None if sample_weight is None else _check_sample_weight(on_host(sample_weight), X)
        Y = self._codes(y, "y")
        weights = self._row_weights(Y, self._class_weights(Y, False), weights)
        sizes = sizes_of(self)
        plan = plan_for(self, sizes, self._fitted_loss()[0], str(self.coefs_[0].dtype), X.shape[0])
        plan = replace(plan, dropout=(0.0,) * (len(sizes) - 2))
        network = FittedNetwork(plan, build_net(plan, 0))
        network.load((self.coefs_, self.intercepts_), vars(self).get("norms_", {}))
        w = None if weights is None else weights.reshape(-1, 1)
        net = network.net
        J, grad = Objective(network.step, dense(X), Y, w)(get_theta(net, net.params.theta))
        return J, as_parameters(net.params.named(grad))

    # -- other forms -------------------------------------------------------------------------------------------------

    @classmethod
    def from_sklearn(cls, fitted: Any, **changes: Any) -> Any:
        """This class's estimator from scikit-learn's fitted one of the same name; ``changes`` set other parameters.

        Weights come over bit for bit, the optimizer's state too; a regressor keeps scikit-learn's ``loss_scaling``.
        """
        return conversion.from_sklearn(cls, fitted, changes)

    @exclusive
    def to_sklearn(self) -> Any:
        """scikit-learn's fitted estimator of the same name, with the same weights bit for bit."""
        tabular.refuse(self, "to_sklearn()")
        return conversion.to_sklearn(self)

    @exclusive
    def to_safetensors(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file."""
        conversion.to_safetensors(self, path)

    @classmethod
    def from_safetensors(cls, path: str | os.PathLike[str], *, custom: Custom = (), **changes: Any) -> Any:
        """Read what :meth:`to_safetensors` wrote; ``changes`` set other parameters, such as ``device="cpu"``.

        ``custom``: the formulas of your own that it was made with, such as ``custom=[snake, MyOptimizer]``.
        """
        return conversion.from_safetensors(cls, path, changes, custom)

    # -- copies ------------------------------------------------------------------------------------------------------

    @exclusive
    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network: what is pickled lives on the host, and loads where there is no device."""
        state = dict(super().__getstate__())
        state.pop("_device_state", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.preset is not None
        tags.array_api_support = True
        return tags
