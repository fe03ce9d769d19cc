"""MLPClassifier: scikit-learn's, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.callback import with_callbacks
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target
from sklearn.utils.validation import validate_data

from ..maths.losses import Loss
from .base import MultilayerPerceptron
from .fit import fit
from .fitted_network import exclusive, one_fit
from .inputs import FLOATS, in_kind, on_host, origin_of
from .labels import (
    MultiOutputLabels,
    class_weights,
    codes_of,
    is_several,
    known_and_given,
    labels_from,
    loss_of,
    new_labels,
    targets_of,
)
from .params import CLASSIFIER_CONSTRAINTS, store


class MLPClassifier(ClassifierMixin, MultilayerPerceptron):
    """Multi-layer perceptron classifier with scikit-learn's parameters, attributes and meaning.

    Parameters
    ----------
    hidden_layer_sizes ... max_fun
        As in ``sklearn.neural_network.MLPClassifier``, with the same defaults. Beyond: ``activation`` takes every name
        of ``maths.activations``, a mapping, or a list with one for each hidden layer; ``solver`` every name of
        ``maths.optimizers`` or a mapping; ``learning_rate`` every name of ``maths.schedules`` or a mapping;
        ``validation_fraction`` a splitter.
    device : str, default "auto"
        ``"auto" | "cpu" | "cuda[:i]" | NAMESPACE[:DEVICE]``; auto reads BACKPROP_GPU_DEVICE, else takes the faster.
    dtype : {"float32", "float64"} or None, default None
        What is computed in; None: the input's, as in scikit-learn.
    kernels : {"auto", "reference", "native"}, default "auto"
    class_weight : dict, "balanced" or None, default None
        Multiplies the weights of the rows; with several labels a list of dicts.
    initializer : str, default "sklearn"
        scikit-learn's own draws, or a name of ``maths.initializers``.
    dropout : float or list of float, default 0.0
        Fraction of each hidden layer's units dropped in training.
    label_smoothing : float, default 0.0
        The share of the target that is spread over all classes.
    batch_norm : bool or list of bool, default False
        Normalize hidden layers between their affine part and their activation. The batches of an epoch are then as
        equal in size as they can be, ``batch_size`` at most.
    batch_ensemble : int, default 1
        Members of an ensemble that share the hidden layers' weights and are trained in one step (TabM-mini,
        ``network.members``): predictions are their mean, the loss is the mean of theirs. From scikit-learn's start, the
        weights are those of ``initializer="auto"``. Not with ``batch_norm``.
    weight_average : float, default 0.0
        Decay of an exponential moving average of the weights, 0.999 say, which is what is validated and kept.
    clip_norm : float or None, default None
        Upper limit of the gradient's global norm.
    validation_metrics : sequence of str, default ()
        Names of ``training.metrics``, followed on the validation set.
    callbacks : sequence of training.callbacks.Callback, default ()
    preset : {"tabular"} or None, default None
        Settings for tables in place of the defaults (what is given otherwise stays), rows scaled and targets
        standardized within the estimator, and the mean of several nets: see docs/tabular.md.
    n_members : int, default 4
        Nets of the preset; of 500 rows and more, each has ``batch_ensemble`` 2. They advance together, in one recorded
        program, with the bits of nets fitted one by one; with ``callbacks``, which follow one run each, they are fitted
        one by one.

    Attributes
    ----------
    classes_, coefs_, intercepts_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, t_,
    n_iter_, n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        scikit-learn's, NumPy arrays whatever the device.
    norms_
        With ``batch_norm``: the normalized layers' gamma, mean and variance by name; with ``batch_ensemble``:
        ``R1``, a factor for each member and input. Members' output layers are side by side in ``coefs_[-1]``.
    validation_loss_curve_, validation_metric_curves_
        With a validation set: its loss without penalty, and {metric: list}, one for each epoch.
    members_, inputs_, columns_
        With the preset, in place of ``coefs_`` and the curves: fitted estimators, each of one net; what encodes rows;
        and of a data frame with texts or dates, what each column holds.

    Raises
    ------
    InvalidParameterError, ValueError
        scikit-learn's kinds, naming the parameter or what is wrong with the data.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CLASSIFIER_CONSTRAINTS
    loss = "log_loss"

    def __init__(
        self,
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
        class_weight: Any = None,
        initializer: str = "sklearn",
        dropout: Any = 0.0,
        label_smoothing: float = 0.0,
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
    ) -> MLPClassifier:
        """Fit to X (n_samples, n_features) and labels y (n_samples,), or several labels for each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Several columns are 0/1 labels, or labels of several classes each, which share the hidden layers.
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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """One epoch over the given rows; ``classes`` (all that will ever come) is needed the first time.

        With several labels of several classes, ``classes`` is a list of arrays, one for each column of y.
        """
        with one_fit(self):
            y, classes = on_host(y), on_host(classes)
            nested = classes is not None and len(classes) > 0 and all(np.ndim(on_host(c)) == 1 for c in classes)
            if classes is None and hasattr(self, "_label_binarizer"):
                pass  # they are known
            elif nested or is_several(np.asarray(y)):  # rows that lack classes may look like 0/1 labels
                if classes is None:
                    raise ValueError("classes must be passed on the first call to partial_fit.")
                if not hasattr(self, "classes_"):
                    self._take_labels(MultiOutputLabels().of([on_host(c) for c in classes]))
            elif _check_partial_fit_first_call(self, classes):
                multilabel = type_of_target(y).startswith("multilabel")
                self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
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
            dtype=self.dtype or FLOATS,
            ensure_all_finite=self._finite(),
            reset=first,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._take_labels(new_labels(y))
            return X, targets_of(self._label_binarizer, y)
        for known, given in known_and_given(self._label_binarizer, y):
            if self.warm_start and set(given) != set(known):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {known}, `y` has {given}"
                )
            if not set(given) <= set(known):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has {given}."
                )
        return X, targets_of(self._label_binarizer, y)

    def _take_labels(self, labels: Any) -> None:
        self._label_binarizer, self.classes_ = labels, labels.classes_

    def _codes(self, y: Any, name: str) -> np.ndarray:
        for known, given in known_and_given(self._label_binarizer, y):
            if not set(given) <= set(known):
                raise ValueError(f"{name} has labels that y of the fit has not: {np.setdiff1d(given, known)}.")
        return targets_of(self._label_binarizer, y)

    def _loss_of(self, Y: np.ndarray) -> tuple[Loss, int]:
        return self._fitted_loss()

    def _fitted_loss(self) -> tuple[Loss, int]:
        return loss_of(self._label_binarizer, float(self.label_smoothing))

    def _class_weights(self, Y: np.ndarray, incremental: bool) -> Any:
        if self.class_weight is None:
            return None
        given = self.class_weight if isinstance(self.class_weight, list) else [self.class_weight]
        if incremental and "balanced" in given:
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit, which does not see all rows; pass a dict of "
                "weights."
            )
        return class_weights(self.class_weight, self._label_binarizer, Y)

    def _row_weights(self, Y: np.ndarray, by_class: Any, sample_weight: Any) -> Any:
        if by_class is None:
            return sample_weight
        weights = np.ones(len(Y))
        for weight, codes in zip(by_class, codes_of(self._label_binarizer, Y), strict=True):
            weights *= weight[codes]
        return weights if sample_weight is None else weights * sample_weight

    def _stratify(self, Y: np.ndarray) -> np.ndarray | None:
        return Y.astype(bool) if self.n_outputs_ == 1 else None

    def _one_hot(self, Y: np.ndarray) -> np.ndarray:
        return Y if self.n_outputs_ == Y.shape[1] else (np.arange(self.n_outputs_) == Y).astype(np.float64)

    # -- prediction --------------------------------------------------------------------------------------------------

    @exclusive
    def predict(self, X: Any) -> Any:
        """Labels (n_samples,) or (n_samples, n_labels), in the namespace of X."""
        AL = self._outputs(X, "predict")
        return in_kind(labels_from(self._label_binarizer, AL), origin_of(X))

    @exclusive
    def predict_proba(self, X: Any) -> Any:
        """Probabilities (n_samples, n_classes), columns in the order of ``classes_``, in the namespace of X.

        With several labels of several classes: a list of such arrays, as scikit-learn's forests return.
        """
        return self._probabilities(X, "predict_proba", lambda p: p)

    @exclusive
    def predict_log_proba(self, X: Any) -> Any:
        """The logarithm of :meth:`predict_proba`."""
        return self._probabilities(X, "predict_log_proba", lambda p: np.log(p, out=p))

    def _probabilities(self, X: Any, method: str, then: Callable[[np.ndarray], np.ndarray]) -> Any:
        AL, origin = self._outputs(X, method), origin_of(X)
        if isinstance(self._label_binarizer, MultiOutputLabels):
            return [in_kind(then(p.copy()), origin) for p in self._label_binarizer.split(AL)]
        return in_kind(then(np.hstack([1 - AL, AL]) if self.n_outputs_ == 1 else AL), origin)

    @exclusive
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows whose label, or all of whose labels, are right."""
        if not isinstance(vars(self).get("_label_binarizer"), MultiOutputLabels):
            return float(super().score(X, y, sample_weight))
        right = np.all(on_host(self.predict(X)) == np.asarray(on_host(y)), axis=1)
        return float(np.average(right, weights=on_host(sample_weight)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
