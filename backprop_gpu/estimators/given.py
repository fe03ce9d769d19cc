"""Which parameters were given, and which of them a fit would not look at: those are refused by name.

A parameter is given when it differs from its default. With ``solver="sgd"``, ``"adam"`` and ``"lbfgs"`` scikit-learn
ignores what belongs to another solver, and searches over solvers rely on it; so do they here. The other solvers and the
preset ignore nothing.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..maths.optimizers import Optimizer
from .params import OPTIMIZER_FIELDS, RATE_RULES, defaults_of, get_rule, invalid, is_given, read

SKLEARN_SOLVERS = ("sgd", "adam", "lbfgs")
_NO_LBFGS = ("weight_average", "clip_norm", "validation_metrics")  # what scikit-learn's lbfgs cannot be asked for


def check_given(estimator: Any, solver: Any) -> None:
    """That the fit looks at every parameter that was given; ``solver`` is what it trains with.

    Raises
    ------
    InvalidParameterError
        Naming the first that it does not look at.
    """
    for name, reason in _unused(estimator, solver).items():
        if is_given(estimator, name):
            default = defaults_of(estimator.__class__)[name]
            raise invalid(estimator, name, f"{reason}; leave it at its default, {default!r}")


def _unused(e: Any, solver: Any) -> dict[str, str]:
    """Parameters that the fit does not look at, and why."""
    if e.preset is not None:
        stops = {"early_stopping": f"preset={e.preset!r} stops early by itself, by the validation loss"}
        if solver == "lbfgs":
            return {"solver": f"preset={e.preset!r} trains with batches, a schedule and dropout, which lbfgs has not"}
        return stops | _of_others(e, solver)
    alone = {} if e.n_members == 1 else {"n_members": "it is for preset='tabular'"}
    if not (isinstance(solver, str) and solver in SKLEARN_SOLVERS):
        return alone | _of_others(e, solver)
    if solver == "lbfgs":
        alone |= dict.fromkeys(_NO_LBFGS, "solver='lbfgs' has no epochs or steps that it could follow")
        if not (isinstance(e.learning_rate, str) and e.learning_rate in RATE_RULES):
            alone["learning_rate"] = "solver='lbfgs' finds its own step sizes and takes no schedule"
        if hasattr(e.validation_fraction, "split"):
            alone["validation_fraction"] = "solver='lbfgs' follows no validation set"
    return alone


def _of_others(e: Any, solver: Any) -> dict[str, str]:
    """scikit-learn's parameters of solvers that this one is not, and what ``solver`` says itself."""
    found, rule = {"max_fun": "it is for solver='lbfgs'"}, read(e, "solver", lambda _: get_rule(e, solver))
    label, has = solver if isinstance(solver, str) else rule.name, ", ".join(f.name for f in fields(rule))
    for name, field in OPTIMIZER_FIELDS.items():
        if not hasattr(rule, field) and (name, solver) != ("momentum", "sgd"):  # which is without it if it is 0
            found[name] = f"the solver {label} does not use it: it has {has}"
        elif isinstance(solver, dict) and field in solver:
            found[name] = f"solver gives {field} too"
        elif isinstance(solver, Optimizer) and (name != "weight_average" or solver.average):
            found[name] = f"solver is an object that has its own {field}"
    if solver != "sgd":
        found["nesterovs_momentum"] = "it is for solver='sgd'; 'nesterov' and 'momentum' are solvers of their own"
        if isinstance(e.learning_rate, str) and e.learning_rate in RATE_RULES:
            found["learning_rate"] = f"{e.learning_rate!r} is for solver='sgd'; use a schedule such as 'cosine'"
    if solver != "sgd" or e.learning_rate != "invscaling":
        found["power_t"] = "it is for solver='sgd' with learning_rate='invscaling'"
    return found
