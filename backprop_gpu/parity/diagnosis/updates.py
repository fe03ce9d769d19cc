"""Hypotheses about what a step does once: penalty, norm, clipping, the optimizer's numbers, state and movement."""

from __future__ import annotations

import math

import numpy as np

from ..comparator import Comparison
from ..findings import Finding
from ..oracle import updates
from ..trace import Call, StepTrace

NEAR = 1e-3  # relative, for a number that is worked out from many entries


def _eps(trace: StepTrace) -> float:
    return float(np.finfo(trace.spec.dtype).eps)


def _close(comparison: Comparison, hypothesis: np.ndarray, room: np.ndarray | float) -> bool:
    return bool(np.all(np.abs(comparison.got - hypothesis) <= 4.0 * comparison.bound + room))


def _call(trace: StepTrace, name: str) -> Call | None:
    return next((c for c in trace.calls if c.name == name), None)


def step_numbers(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """The optimizer's numbers of another step."""
    if finding.tensor != "step numbers":
        return ""
    r, t = trace.spec, trace.t + 1
    p = r.optimizer_parameters
    rate = p["learning_rate"] * updates.schedule_factor(r.schedule, r.schedule_parameters, trace.t, r.total_steps)
    for other in (t + 1, t - 1):
        if other >= 1 and _close(comparison, np.array(updates.step_numbers(r.optimizer, p, other, rate)), 0.0):
            return f"the bias correction of step {other}, not of step {t}"
    return ""


def penalty_on_biases(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """The biases' gradient off by a multiple of the biases."""
    if finding.tensor != "db applied":
        return ""
    b = trace.theta[trace.spec.n_weights :].astype(np.float64)
    off = comparison.got - comparison.want
    c = float(off @ b / (b @ b)) if b.any() else 0.0
    if c and np.all(np.abs(off - c * b) <= 8.0 * _eps(trace) * (np.abs(comparison.want) + np.abs(c * b))):
        return f"the L2 penalty is put on biases too ({c:.6g} times b)"
    return ""


def penalty_times(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """Gradient or cost off by a multiple of the penalty that was asked for."""
    call, r = _call(trace, "penalty"), trace.spec
    if finding.tensor not in ("dW+penalty", "J") or call is None:
        return ""
    W = trace.theta[: r.n_weights].astype(np.float64)
    l1, l2 = (0.0 if call.numbers[k] is None else float(call.numbers[k][0]) for k in ("l1", "l2"))  # type: ignore[index]
    if finding.tensor == "J":
        penalty = np.array([0.5 * l2 * float(W @ W) + l1 * float(np.abs(W).sum())])
    else:
        penalty = l2 * W + l1 * np.sign(W)
    square = float(penalty @ penalty)
    off = (comparison.got - comparison.want).reshape(penalty.shape)
    c = float(off @ penalty / square) if square else 0.0
    times = 1.0 + c
    if not c or np.any(np.abs(off - c * penalty) > 4.0 * comparison.bound.reshape(penalty.shape) + 4.0 * _eps(trace)):
        return ""
    if abs(times) < NEAR:
        return "the penalty is missing"
    whole = abs(times - round(times)) < NEAR
    # Of a single number any factor would fit, so that only one that means something is said.
    if penalty.size == 1 and not (whole and abs(times) <= 4.0):
        return ""
    return f"the penalty is taken {round(times) if whole else f'{times:.6g}'} times"


def norms(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """The global norm of something else, and a factor that clips nothing."""
    if finding.tensor == "clip factor":
        return "1: nothing is clipped" if comparison.got[0] == 1.0 and comparison.want[0] < 1.0 else ""
    if finding.tensor != "norm":
        return ""
    g, n, got = trace.grad.astype(np.float64), trace.spec.n_weights, float(comparison.got[0])
    others = {
        "it is the square of it: the root is missing": float(g @ g),
        "it is the norm of the weights' part alone": float(np.linalg.norm(g[:n])),
        "it is the norm of the biases' part alone": float(np.linalg.norm(g[n:])),
        "it is the largest entry": float(np.abs(g).max()),
        "it is the sum of sizes": float(np.abs(g).sum()),
    }
    return next((text for text, x in others.items() if x and abs(got / x - 1.0) < 1e-5), "")


def state(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """An optimizer's vector that has not moved, or was mixed in another proportion."""
    if finding.operation != "update" or not finding.tensor.startswith("state ") or not finding.tensor[6:].isdigit():
        return ""
    k, p, r = int(finding.tensor[6:]), trace.spec.optimizer_parameters, trace.spec
    old = trace.optimizer_state[k].astype(np.float64)
    if np.array_equal(comparison.got, old) and not np.array_equal(comparison.want, old):
        return "it has not moved"
    names = {"adam": ("beta1", "beta2"), "adamw": ("beta1", "beta2"), "amsgrad": ("beta1", "beta2"), "lion": ("beta2",)}
    names |= {"rmsprop": ("rho",)}
    mixed = names.get(r.optimizer, ())
    if k >= len(mixed):
        return ""
    rate = float(p[mixed[k]])
    g = (comparison.want - rate * old) / (1.0 - rate)  # clipped, and squared where it is
    square = float((old - g) @ (old - g))
    share = float((comparison.got - g) @ (old - g)) / square if square else rate
    fits = _close(comparison, share * old + (1.0 - share) * g, 8.0 * _eps(trace) * (np.abs(old) + np.abs(g)))
    return f"the old state's share is {share:.6g}, not {rate:g}" if fits and abs(share - rate) > 1e-6 else ""


def adaptive(finding: Finding, comparison: Comparison, trace: StepTrace) -> str:
    """theta of Adam and its relatives by another epsilon, or with decay where there is none."""
    r = trace.spec
    if finding.tensor != "theta" or r.optimizer not in ("adam", "adamw"):
        return ""
    call = _call(trace, "update")
    if call is None or call.numbers["scalars"] is None:
        return ""
    lr, c, *rest = (float(x) for x in call.numbers["scalars"])
    m, v = (s.astype(np.float64) for s in trace.optimizer_state_after[:2])
    theta, p = trace.theta.astype(np.float64), r.optimizer_parameters
    kept_share = np.ones_like(theta)
    if rest and r.optimizer == "adamw":
        kept_share[: r.n_weights] = rest[0]
    root, eps = c * np.sqrt(v), float(p["epsilon"])
    everywhere = np.full_like(theta, rest[0]) if rest else kept_share
    others = {
        "epsilon stands inside the root": kept_share * theta - lr * m / np.sqrt(root**2 + eps),
        "epsilon is left out": kept_share * theta - lr * m / np.where(root > 0.0, root, 1.0),
        "weight decay is applied to biases too": everywhere * theta - lr * m / (root + eps),
        "weight decay is not applied": theta - lr * m / (root + eps),
    }
    room = 8.0 * _eps(trace) * (np.abs(theta) + np.abs(comparison.got - theta))
    for text, hypothesis in others.items():
        if not np.allclose(hypothesis, comparison.want, rtol=1e-12, atol=0.0) and _close(comparison, hypothesis, room):
            return text
    return _epsilon(comparison, theta * kept_share, lr * m, root, eps, room)


def _epsilon(
    comparison: Comparison, theta: np.ndarray, step: np.ndarray, root: np.ndarray, eps: float, room: np.ndarray
) -> str:
    """The epsilon that explains every entry, if one does."""
    moved = theta - comparison.got
    clear = (np.abs(moved) > 1e3 * room) & (np.abs(step) > 0.0)
    if np.count_nonzero(clear) < 4:
        return ""
    found = float(np.median(step[clear] / moved[clear] - root[clear]))
    if not math.isfinite(found) or found <= 0.0 or abs(found / eps - 1.0) < NEAR:
        return ""
    return (
        f"epsilon is {found:.3g}, not {eps:g}" if _close(comparison, theta - step / (root + found), 64.0 * room) else ""
    )
