"""Optimizers in one pass over the flat vector, with the penalty and the gradient's norm (``maths.optimizers``)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ....maths.optimizers import Optimizer
from .calling import REALS, Kernel, inline, integers
from .parts import in_order


def rule_of(optimizer: Optimizer, decay: bool) -> tuple[str, list[float]]:
    """The pass that an optimizer needs, by name, and its five constants, each rounded once from float64."""
    o: Any = optimizer
    if o.name == "momentum" and o.variant == "average":
        return "momentum_average", [o.momentum, 1.0 - o.momentum, 0.0, 0.0, 0.0]
    if o.name in ("sgd", "momentum", "nesterov"):
        return o.name, [getattr(o, "momentum", 0.0), 0.0, 0.0, 0.0, 0.0]
    if o.name in ("rmsprop", "adagrad"):
        rho = getattr(o, "rho", 0.0)
        return o.name, [rho, 1.0 - rho, 0.0, 0.0, o.epsilon]
    constants = [o.beta1, 1.0 - o.beta1, o.beta2, 1.0 - o.beta2, getattr(o, "epsilon", 0.0)]
    if o.name == "adamw":
        return "adamw" if decay else "adam", constants
    return "lion_decaying" if o.name == "lion" and decay else o.name, constants


# Row: 0 theta, 1 grad, 2-4 slots or 0, 5 scalars, 6 constants (5), 7 factor or 0, 8 n.
@functools.cache
def update(dtype: str, rule: str) -> Kernel:
    """theta, slots <- optimizer(theta, factor * grad, slots; scalars)."""
    real, one_pass = REALS[dtype], {**_first_order(dtype), **_second_order(dtype), **_signed(dtype)}[rule]
    f, floats, scalar = real.f, real.floats, real.scalar

    @inline
    def body(address):
        a = integers(address, 9)
        n, factor, s, c = a[8], scalar(a[7], f(1.0)), floats(a[5], 4), floats(a[6], 5)
        one_pass(floats(a[0], n), floats(a[1], n), floats(a[2], n), floats(a[3], n), floats(a[4], n), s, c, factor, n)

    return Kernel(f"update_{rule}", dtype, body)


def _first_order(dtype: str) -> dict[str, Any]:
    """SGD and the momentum family; c holds mu, 1 - mu."""

    @inline
    def sgd(theta, g, v, unused, none, s, c, factor, n):
        lr = s[0]
        for i in range(n):
            theta[i] -= lr * (factor * g[i])

    @inline
    def momentum(theta, g, v, unused, none, s, c, factor, n):
        lr, mu = s[0], c[0]
        for i in range(n):
            v[i] = mu * v[i] - lr * (factor * g[i])
            theta[i] += v[i]

    @inline
    def momentum_average(theta, g, v, unused, none, s, c, factor, n):
        lr, mu, rest = s[0], c[0], c[1]
        for i in range(n):
            v[i] = mu * v[i] + rest * (factor * g[i])
            theta[i] -= lr * v[i]

    @inline
    def nesterov(theta, g, v, unused, none, s, c, factor, n):
        lr, mu = s[0], c[0]
        for i in range(n):
            step = lr * (factor * g[i])
            v[i] = mu * v[i] - step
            theta[i] += mu * v[i] - step

    return {"sgd": sgd, "momentum": momentum, "momentum_average": momentum_average, "nesterov": nesterov}


def _second_order(dtype: str) -> dict[str, Any]:
    """RMSprop, Adagrad and the Adam family; c holds b1, 1 - b1, b2, 1 - b2, epsilon."""

    @inline
    def rmsprop(theta, g, m, unused, none, s, c, factor, n):
        lr, rho, rest, epsilon = s[0], c[0], c[1], c[4]
        for i in range(n):
            x = factor * g[i]
            m[i] = rho * m[i] + rest * (x * x)
            theta[i] -= lr * x / (np.sqrt(m[i]) + epsilon)

    @inline
    def adagrad(theta, g, m, unused, none, s, c, factor, n):
        lr, epsilon = s[0], c[4]
        for i in range(n):
            x = factor * g[i]
            m[i] += x * x
            theta[i] -= lr * x / (np.sqrt(m[i]) + epsilon)

    @inline
    def adam(theta, g, m, v, none, s, c, factor, n):
        lr, b1, r1, b2, r2, epsilon, correction = s[0], c[0], c[1], c[2], c[3], c[4], s[1]
        for i in range(n):
            x = factor * g[i]
            m[i] = b1 * m[i] + r1 * x
            v[i] = b2 * v[i] + r2 * (x * x)
            theta[i] -= lr * m[i] / (correction * np.sqrt(v[i]) + epsilon)

    @inline
    def adamw(theta, g, m, v, none, s, c, factor, n):
        lr, b1, r1, b2, r2, epsilon, correction = s[0], c[0], c[1], c[2], c[3], c[4], s[1]
        shrink = s[2]
        for i in range(n):
            x = factor * g[i]
            m[i] = b1 * m[i] + r1 * x
            v[i] = b2 * v[i] + r2 * (x * x)
            theta[i] = shrink * theta[i] - lr * m[i] / (correction * np.sqrt(v[i]) + epsilon)

    @inline
    def amsgrad(theta, g, m, v, top, s, c, factor, n):
        lr, b1, r1, b2, r2, epsilon, correction = s[0], c[0], c[1], c[2], c[3], c[4], s[1]
        for i in range(n):
            x = factor * g[i]
            m[i] = b1 * m[i] + r1 * x
            v[i] = b2 * v[i] + r2 * (x * x)
            top[i] = v[i] if not top[i] > v[i] else top[i]
            theta[i] -= lr * m[i] / (correction * np.sqrt(top[i]) + epsilon)

    return {"rmsprop": rmsprop, "adagrad": adagrad, "adam": adam, "adamw": adamw, "amsgrad": amsgrad}


def _signed(dtype: str) -> dict[str, Any]:
    """Lion, with and without decay; c holds b1, 1 - b1, b2, 1 - b2."""
    f = REALS[dtype].f

    def lion(decays: bool) -> Any:
        @inline
        def one_pass(theta, g, v, unused, none, s, c, factor, n):
            lr, b1, r1, b2, r2, shrink = s[0], c[0], c[1], c[2], c[3], s[1] if decays else f(1.0)
            for i in range(n):
                x = factor * g[i]
                d = b1 * v[i] + r1 * x
                v[i] = b2 * v[i] + r2 * x
                sign = f(1.0) if d > f(0.0) else (f(-1.0) if d < f(0.0) else d)
                theta[i] = shrink * theta[i] - lr * sign

        return one_pass

    return {"lion": lion(False), "lion_decaying": lion(True)}


# Row: 0 theta, 1 grad, 2 l1 or 0, 3 l2 or 0, 4 sum (float64), 5 n.
@functools.cache
def penalty(dtype: str) -> Kernel:
    """grad += l2 theta + l1 sign(theta);  sum <- l2/2 |theta|^2 + l1 |theta|_1, of some or all parameters."""
    real, doubles = REALS[dtype], REALS["float64"].floats
    f, floats, scalar = real.f, real.floats, real.scalar

    @inline
    def body(address):
        a = integers(address, 6)
        n, l1, l2 = a[5], scalar(a[2], f(0.0)), scalar(a[3], f(0.0))
        theta, g = floats(a[0], n), floats(a[1], n)
        penalties, total = doubles(a[4], 1), np.float64(0.0)
        penalties[0] = np.float64(0.0)
        if a[3]:  # a strength that is left out is not 0: 0 times infinity would be NaN
            for i in range(n):
                g[i] += l2 * theta[i]
            for i in range(n):  # by itself: see ``norms``
                total += np.float64(theta[i]) * np.float64(theta[i])
            penalties[0] += np.float64(0.5) * np.float64(l2) * total
            total = np.float64(0.0)
        if a[2]:
            for i in range(n):
                x = theta[i]
                g[i] += l1 * (f(1.0) if x > f(0.0) else (f(-1.0) if x < f(0.0) else x))
            for i in range(n):
                total += np.float64(abs(theta[i]))
            penalties[0] += np.float64(l1) * total

    return Kernel("penalty", dtype, body)


# Row: 0 sums (float64), 1 how many, 2 value.
@functools.cache
def penalty_value(dtype: str) -> Kernel:
    """value += the sums of ``penalty``, added up."""
    f, floats, doubles = REALS[dtype].f, REALS[dtype].floats, REALS["float64"].floats

    @inline
    def body(address):
        a = integers(address, 3)
        sums, total = doubles(a[0], a[1]), np.float64(0.0)
        for i in range(a[1]):
            total += sums[i]
        floats(a[2], 1)[0] += f(total)

    return Kernel("penalty_value", dtype, body)


# Row: 0 grad, 1 n, 2 sum and scale (float64).
@functools.cache
def squares(dtype: str) -> Kernel:
    """sum <- |scale grad|^2, of some or all of its numbers; scale is 1 unless the squares overflow or vanish."""
    floats, doubles = REALS[dtype].floats, REALS["float64"].floats
    many, few, down, up = (np.float64(2.0**e) for e in (900, -900, -600, 700))

    @in_order  # the square of the scale is no number
    def of_scaled(g, scale, n):
        total = np.float64(0.0)
        for i in range(n):
            x = scale * np.float64(g[i])
            total += x * x
        return total

    @inline
    def body(address):
        a = integers(address, 3)
        g, total, scale, out = floats(a[0], a[1]), np.float64(0.0), np.float64(1.0), doubles(a[2], 2)
        for i in range(a[1]):
            total += np.float64(g[i]) * np.float64(g[i])
        scale = down if total > many else (up if total < few else scale)
        if scale != np.float64(1.0):
            total = of_scaled(g, scale, a[1])
        out[0] = total
        out[1] = scale

    return Kernel("squares", dtype, body)


# Row: 0 sums and scales (float64), 1 how many, 2 limit, 3 norm, 4 factor.
@functools.cache
def global_norm(dtype: str) -> Kernel:
    """norm <- |grad|_2 from the sums of ``squares``;  factor <- min(1, limit / norm)."""
    f, floats, doubles = REALS[dtype].f, REALS[dtype].floats, REALS["float64"].floats
    largest = f(np.finfo(dtype).max)

    @in_order
    def body(address):
        a = integers(address, 5)
        sums, total, scale = doubles(a[0], 2 * a[1]), np.float64(0.0), np.float64(0.0)
        for i in range(a[1]):  # that of the largest numbers is the least
            if sums[2 * i] != np.float64(0.0):
                if scale == np.float64(0.0):
                    scale = sums[2 * i + 1]
                scale = sums[2 * i + 1] if sums[2 * i + 1] < scale else scale
        scale = scale if scale > np.float64(0.0) else np.float64(1.0)
        for i in range(a[1]):
            shrunk = scale / sums[2 * i + 1] if sums[2 * i] != np.float64(0.0) else np.float64(0.0)
            total += sums[2 * i] * shrunk * shrunk
        root = np.sqrt(total)
        size, limit = f(root / scale), floats(a[2], 1)[0]
        floats(a[3], 1)[0] = size
        factor = limit / size if size > limit else f(1.0)
        floats(a[4], 1)[0] = f(np.float64(limit) / root * scale) if size > largest else factor

    return Kernel("global_norm", dtype, body)
