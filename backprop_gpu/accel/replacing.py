"""The methods that replace scikit-learn's: our estimator computes, scikit-learn's object has the fitted attributes."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import validate_data

from ..errors import BackpropError
from . import usage_report

NAMES = ("MLPClassifier", "MLPRegressor")
METHODS = ("fit", "partial_fit", "_forward_pass_fast")

# Attributes of our estimators that scikit-learn's do not have.
_OURS = ("_device_state", "_seed", "_fitted_on", "validation_loss_curve_", "validation_metric_curves_")

_estimators: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # our estimator behind each of scikit-learn's
_originals: dict[tuple[type, str], Any] = {}  # what a class had of its own under this name, or None


def replace(module: ModuleType) -> list[type]:
    """Replace the methods of both classes, which are returned; nothing happens if they are."""
    classes = [getattr(module, name) for name in NAMES]
    for cls in classes:
        if (cls, "fit") in _originals:
            continue
        for name in METHODS:
            _originals[cls, name] = vars(cls).get(name)
        partial_fit = vars(cls)["partial_fit"]
        cls.fit = _fitting(cls, cls.fit)
        cls.partial_fit = available_if(partial_fit.check)(_fitting(cls, partial_fit.fn))
        cls._forward_pass_fast = _forward(cls, cls._forward_pass_fast)
    return classes


def restore(module: ModuleType) -> None:
    """Give both classes their own methods back."""
    for cls in (getattr(module, name) for name in NAMES):
        for name in METHODS:
            if (cls, name) not in _originals:
                return
            original = _originals.pop((cls, name))
            if original is None:  # inherited
                delattr(cls, name)
            else:
                setattr(cls, name, original)


def _fitting(cls: type[Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """``fit`` or ``partial_fit`` by our estimator; by scikit-learn's for a subclass, and where ours raises an error."""
    line = inspect.unwrap(original).__code__.co_firstlineno

    @functools.wraps(original)
    def method(self: Any, X: Any, y: Any, *rest: Any, **named: Any) -> Any:
        reason = _unsupported_reason(self, cls, original.__name__, y)
        if reason:
            usage_report.count(type(self).__name__, original.__name__, reason=reason)
            return original(self, X, y, *rest, **named)
        random = check_random_state(self.random_state)
        before = random.get_state()
        try:
            ours = _estimator_of(self)
            caught = _quietly(lambda: getattr(ours, original.__name__)(X, y, *rest, **named))
        except (BackpropError, ImportError, MemoryError) as error:
            random.set_state(before)
            _estimators.pop(self, None)
            usage_report.count(cls.__name__, original.__name__, reason=_one_line(error))
            return original(self, X, y, *rest, **named)
        _take(self, ours)
        usage_report.count(cls.__name__, original.__name__, on=ours._device_state.device)
        _warn_again(caught, cls, line)
        return self

    return _fit_context(prefer_skip_nested_validation=True)(method)


def _unsupported_reason(self: Any, cls: type[Any], method: str, y: Any) -> str:
    """Why the call is left to scikit-learn from the start; empty if ours takes it."""
    if type(self) is not cls:
        return f"a subclass of {cls.__name__}"
    if method == "partial_fit" and self.solver == "lbfgs":
        return "partial_fit with solver='lbfgs'"  # scikit-learn's regressor has it, a whole fit
    if cls.__name__ == "MLPClassifier" and np.ndim(y) == 2 and type_of_target(y) == "multiclass-multioutput":
        return "several labels of several classes"  # which scikit-learn refuses, and ours would fit
    return ""


def _forward(cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
    """The forward pass that every prediction goes through."""

    @functools.wraps(original)
    def method(self: Any, X: Any, check_input: bool = True) -> Any:
        if type(self) is not cls:
            return original(self, X, check_input=check_input)
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        try:
            return _estimator_of(self)._forward(X)
        except (BackpropError, ImportError, MemoryError) as error:
            usage_report.count(cls.__name__, "predict", reason=_one_line(error))
            return original(self, X, check_input=False)

    return method


# -- our estimator -----------------------------------------------------------------------------------------------------


def _estimator_of(self: Any) -> Any:
    """Our estimator with the parameters and fitted attributes of scikit-learn's: the same object in every call."""
    from .. import estimators
    from ..estimators.conversion import optimizer_state

    settings = usage_report.settings()
    parameters = self.get_params(deep=False)
    ours = _estimators.get(self)
    if ours is None:
        ours = _estimators[self] = getattr(estimators, type(self).__name__)()
        ours.validation_loss_curve_, ours.validation_metric_curves_ = [], {}
    if hasattr(ours, "loss_scaling"):
        ours.loss_scaling = "sklearn"
    ours.set_params(**parameters, device=settings.device, dtype=settings.dtype)
    own = {k: v for k, v in vars(ours).items() if k in _OURS or k in ours.get_params(deep=False)}
    fitted = {k: v for k, v in vars(self).items() if k not in parameters}
    if "_best_coefs" in fitted:
        fitted["_best"] = {"coefs_": fitted.pop("_best_coefs"), "intercepts_": fitted.pop("_best_intercepts")}
    vars(ours).clear()
    vars(ours).update(own | fitted, _optimizer=optimizer_state(self))
    if ours._optimizer is None:
        del ours._optimizer
    return ours


def _take(self: Any, ours: Any) -> None:
    """Copy the fitted attributes of our estimator to scikit-learn's."""
    from ..estimators.conversion import carry_optimizer

    parameters = ours.get_params(deep=False)
    left_out = {*_OURS, *parameters, "_optimizer", "_best"}
    vars(self).update({k: v for k, v in vars(ours).items() if k not in left_out})
    if "_best" in vars(ours):
        self._best_coefs, self._best_intercepts = ours._best["coefs_"], ours._best["intercepts_"]
    if self.solver == "lbfgs":
        self._coef_indptr, self._intercept_indptr = _layout(self)
    else:
        carry_optimizer(ours._optimizer, self)


def _layout(e: Any) -> tuple[list[tuple[int, int, tuple[int, int]]], list[tuple[int, int]]]:
    """Where scikit-learn's L-BFGS keeps the coefs (start, end, shape) and the intercepts (start, end)."""
    coefs, intercepts, start = [], [], 0
    for coef in e.coefs_:
        coefs.append((start, start + coef.size, coef.shape))
        start += coef.size
    for intercept in e.intercepts_:
        intercepts.append((start, start + intercept.size))
        start += intercept.size
    return coefs, intercepts


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# -- warnings --------------------------------------------------------------------------------------------------------


def _quietly(do: Callable[[], Any]) -> list[warnings.WarningMessage]:
    """Run ``do`` and return the warnings that it gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do()
    return list(caught)


def _warn_again(caught: list[warnings.WarningMessage], cls: type, line: int) -> None:
    """Warn as if ``line`` of scikit-learn's module did: people filter on ``module="sklearn"``."""
    package = os.path.dirname(os.path.dirname(__file__)) + os.sep
    files = {getattr(m, "__file__", None): name for name, m in list(sys.modules.items())} if caught else {}
    module = sys.modules[cls.__module__]
    for w in caught:
        from_us = w.filename.startswith(package)
        name = cls.__module__ if from_us else files.get(w.filename, "")
        file, at = (str(module.__file__), line) if from_us else (w.filename, w.lineno)
        registry = vars(sys.modules[name]).setdefault("__warningregistry__", {}) if name else {}
        warnings.warn_explicit(w.message, w.category, file, at, module=name or None, registry=registry)
