"""The methods that take over: our estimator does the work, scikit-learn's object keeps the fitted attributes."""

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

from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from ..errors import BackpropError
from . import tally

NAMES = ("MLPClassifier", "MLPRegressor")
METHODS = ("fit", "partial_fit", "_forward_pass_fast")

# Attributes of our estimators that scikit-learn's do not have.
_OURS = ("_engine", "_current", "_optimizer", "_seed", "_fitted_on", "validation_loss_curve_", "validation_metric_curves_")

_twins: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # our estimator behind each of scikit-learn's
_originals: dict[tuple[type, str], Any] = {}  # what a class had of its own under this name, or None


def replace(module: ModuleType) -> None:
    """Replace the methods of both classes; nothing happens if they are."""
    from .workers import send_along

    for cls in (getattr(module, name) for name in NAMES):
        if (cls, "fit") in _originals:
            continue
        for name in METHODS:
            _originals[cls, name] = vars(cls).get(name)
        partial_fit = vars(cls)["partial_fit"]
        cls.fit = _fitting(cls, cls.fit)
        cls.partial_fit = available_if(partial_fit.check)(_fitting(cls, partial_fit.fn))
        cls._forward_pass_fast = _forward(cls, cls._forward_pass_fast)
    send_along(module)


def restore(module: ModuleType) -> None:
    """Give both classes their own methods back."""
    for cls in (getattr(module, name) for name in NAMES):
        for name in METHODS:
            original = _originals.pop((cls, name), None)
            if original is not None:
                setattr(cls, name, original)
            elif getattr(vars(cls).get(name), "_accelerated", False):
                delattr(cls, name)


def _fitting(cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
    """``fit`` or ``partial_fit``: ours; scikit-learn's for a subclass, and where ours says that it cannot."""

    line = inspect.unwrap(original).__code__.co_firstlineno

    @functools.wraps(original)
    def method(self: Any, X: Any, y: Any, *rest: Any, **named: Any) -> Any:
        if type(self) is not cls:
            tally.count(type(self).__name__, original.__name__, reason=f"a subclass of {cls.__name__}")
            return original(self, X, y, *rest, **named)
        random = check_random_state(self.random_state)
        before = random.get_state()
        try:
            twin = _twin(self)
            caught = _quietly(lambda: getattr(twin, original.__name__)(X, y, *rest, **named))
        except (BackpropError, ImportError, MemoryError) as error:
            random.set_state(before)
            _twins.pop(self, None)
            tally.count(cls.__name__, original.__name__, reason=_one_line(error))
            return original(self, X, y, *rest, **named)
        _take(self, twin)
        tally.count(cls.__name__, original.__name__, on=_place(twin))
        _warn_again(caught, cls, line)
        return self

    accelerated = _fit_context(prefer_skip_nested_validation=True)(method)
    accelerated._accelerated = True
    return accelerated  # type: ignore[no-any-return]


def _forward(cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
    """The forward pass that every prediction goes through."""

    @functools.wraps(original)
    def method(self: Any, X: Any, check_input: bool = True) -> Any:
        if type(self) is not cls:
            return original(self, X, check_input=check_input)
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        try:
            return _twin(self)._forward(X)
        except (BackpropError, ImportError, MemoryError) as error:
            tally.count(cls.__name__, "predict", reason=_one_line(error))
            return original(self, X, check_input=False)

    method._accelerated = True  # type: ignore[attr-defined]
    return method


# -- the twin --------------------------------------------------------------------------------------------------------


def _twin(self: Any) -> Any:
    """Our estimator with the parameters and the fitted attributes of scikit-learn's; the one of before, if any."""
    from .. import estimators
    from .exchange import from_sklearn

    settings = tally.settings()
    parameters = self.get_params(deep=False)
    twin = _twins.get(self)
    if twin is None:
        twin = _twins[self] = getattr(estimators, type(self).__name__)()
    if hasattr(twin, "loss_scaling"):
        parameters["loss_scaling"] = "sklearn"
    twin.set_params(**parameters, device=settings.device, dtype=settings.dtype)
    mine = {k: v for k, v in vars(self).items() if k not in parameters and k != "_optimizer"}
    theirs = {k: v for k, v in vars(twin).items() if k in _OURS or k in twin.get_params(deep=False)}
    vars(twin).clear()
    vars(twin).update(theirs | mine)
    if hasattr(self, "coefs_") and not hasattr(twin, "validation_loss_curve_"):  # fitted without us, or unpickled
        twin.validation_loss_curve_, twin.validation_metric_curves_ = [], {}
    vars(twin).pop("_optimizer", None)
    if hasattr(self, "_optimizer") and self.solver in ("adam", "sgd"):
        twin._optimizer = from_sklearn(self.solver, self._optimizer)
    return twin


def _take(self: Any, twin: Any) -> None:
    """The fitted attributes of our estimator to scikit-learn's."""
    from .exchange import flat_layout, to_sklearn

    parameters = twin.get_params(deep=False)
    vars(self).update({k: v for k, v in vars(twin).items() if k not in _OURS and k not in parameters})
    if self.solver == "lbfgs":
        self._coef_indptr, self._intercept_indptr = flat_layout(self)
    else:
        self._optimizer = to_sklearn(self, twin._optimizer)


def _place(twin: Any) -> str:
    engine = vars(twin).get("_engine")
    return "backprop_gpu" if engine is None else str(engine.net.backend.name)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# -- warnings --------------------------------------------------------------------------------------------------------


def _quietly(do: Callable[[], Any]) -> list[warnings.WarningMessage]:
    """What is warned of meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do()
    return list(caught)


def _warn_again(caught: list[warnings.WarningMessage], cls: type, line: int) -> None:
    """Warn as if ``line`` of scikit-learn's module did, so that filters on ``module="sklearn"`` find what they look for."""
    package = os.path.dirname(os.path.dirname(__file__))
    files = {getattr(m, "__file__", None): name for name, m in list(sys.modules.items())} if caught else {}
    module = sys.modules[cls.__module__]
    for w in caught:
        ours = w.filename.startswith(package)
        name = cls.__module__ if ours else files.get(w.filename, "")
        file, at = (str(module.__file__), line) if ours else (w.filename, w.lineno)
        registry = sys.modules[name].__dict__.setdefault("__warningregistry__", {}) if name else {}
        warnings.warn_explicit(w.message, w.category, file, at, module=name or None, registry=registry)
