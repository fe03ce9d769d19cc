"""Optimizers in one pass over the flat vector, with the penalty and the gradient's norm (``maths.optimizers``)."""

from __future__ import annotations

import numpy as np

from .calling import floats, inline, integers, kernel, scalar

f = np.float32

SGD, MOMENTUM, MOMENTUM_AVERAGE, NESTEROV, RMSPROP, ADAGRAD, ADAM, ADAMW, AMSGRAD, LION = range(10)
CODES = {
    "sgd": SGD,
    "momentum": MOMENTUM,
    "nesterov": NESTEROV,
    "rmsprop": RMSPROP,
    "adagrad": ADAGRAD,
    "adam": ADAM,
    "adamw": ADAMW,
    "amsgrad": AMSGRAD,
    "lion": LION,
}


@inline
def _first_order(code, theta, g, v, s, c, k, factor, n):
    """SGD and the momentum family; c[0] is mu."""
    lr, mu, rest = s[0], c[0], c[1]
    if code == SGD:
        for i in range(n):
            theta[i] -= lr * (factor * g[i])
    elif code == MOMENTUM:
        for i in range(n):
            v[i] = mu * v[i] - lr * (factor * g[i])
            theta[i] += v[i]
    elif code == MOMENTUM_AVERAGE:
        for i in range(n):
            v[i] = mu * v[i] + rest * (factor * g[i])
            theta[i] -= lr * v[i]
    elif code == NESTEROV:
        for i in range(n):
            step = lr * (factor * g[i])
            v[i] = mu * v[i] - step
            theta[i] += mu * v[i] - step
    elif code == LION:
        shrink = s[1] if k else f(1.0)
        for i in range(n):
            x = factor * g[i]
            d = mu * v[i] + rest * x
            v[i] = c[2] * v[i] + c[3] * x
            sign = f(1.0) if d > f(0.0) else (f(-1.0) if d < f(0.0) else d)
            theta[i] = shrink * theta[i] - lr * sign


@inline
def _second_order(code, theta, g, m, v, top, s, c, k, factor, n):
    """RMSprop, Adagrad and the Adam family; c holds b1, 1-b1, b2, 1-b2, epsilon."""
    lr, b1, r1, b2, r2, epsilon = s[0], c[0], c[1], c[2], c[3], c[4]
    if code == RMSPROP:
        for i in range(n):
            x = factor * g[i]
            m[i] = b1 * m[i] + r1 * (x * x)
            theta[i] -= lr * x / (np.sqrt(m[i]) + epsilon)
    elif code == ADAGRAD:
        for i in range(n):
            x = factor * g[i]
            m[i] += x * x
            theta[i] -= lr * x / (np.sqrt(m[i]) + epsilon)
    elif code == AMSGRAD:
        for i in range(n):
            x = factor * g[i]
            m[i] = b1 * m[i] + r1 * x
            v[i] = b2 * v[i] + r2 * (x * x)
            top[i] = v[i] if not top[i] > v[i] else top[i]
            theta[i] -= lr * m[i] / (s[1] * np.sqrt(top[i]) + epsilon)
    elif code == ADAMW and k:
        for i in range(n):
            x = factor * g[i]
            m[i] = b1 * m[i] + r1 * x
            v[i] = b2 * v[i] + r2 * (x * x)
            theta[i] = s[2] * theta[i] - lr * m[i] / (s[1] * np.sqrt(v[i]) + epsilon)
    else:
        for i in range(n):
            x = factor * g[i]
            m[i] = b1 * m[i] + r1 * x
            v[i] = b2 * v[i] + r2 * (x * x)
            theta[i] -= lr * m[i] / (s[1] * np.sqrt(v[i]) + epsilon)


# Row: 0 code, 1 theta, 2 grad, 3-5 slots or 0, 6 scalars, 7 constants (5), 8 factor or 0, 9 decay?, 10 n.
@kernel
def update(address):
    """theta, slots <- optimizer(theta, factor * grad, slots; scalars)."""
    a = integers(address, 11)
    code, n, factor = a[0], a[10], scalar(a[8], f(1.0))
    theta, g, s, c = floats(a[1], n), floats(a[2], n), floats(a[6], 4), floats(a[7], 5)
    if code in (SGD, MOMENTUM, MOMENTUM_AVERAGE, NESTEROV, LION):
        _first_order(code, theta, g, floats(a[3], n), s, c, a[9], factor, n)
    else:
        _second_order(code, theta, g, floats(a[3], n), floats(a[4], n), floats(a[5], n), s, c, a[9], factor, n)


# Row: 0 theta, 1 grad, 2 l1 or 0, 3 l2 or 0, 4 value, 5 n.
@kernel
def penalty(address):
    """grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1."""
    a = integers(address, 6)
    n, l1, l2 = a[5], scalar(a[2], f(0.0)), scalar(a[3], f(0.0))
    theta, g = floats(a[0], n), floats(a[1], n)
    squares, sizes = np.float64(0.0), np.float64(0.0)
    for i in range(n):
        x = theta[i]
        sign = f(1.0) if x > f(0.0) else (f(-1.0) if x < f(0.0) else x)
        g[i] += l2 * x + l1 * sign
        squares += np.float64(x) * np.float64(x)
        sizes += np.float64(abs(x))
    value = floats(a[4], 1)
    value[0] += f(np.float64(0.5) * np.float64(l2) * squares + np.float64(l1) * sizes)


# Row: 0 grad, 1 n, 2 limit, 3 norm, 4 factor.
@kernel
def global_norm(address):
    """norm <- |grad|_2;  factor <- min(1, limit / norm)."""
    a = integers(address, 5)
    g, total = floats(a[0], a[1]), np.float64(0.0)
    for i in range(a[1]):
        total += np.float64(g[i]) * np.float64(g[i])
    size, limit = f(np.sqrt(total)), floats(a[2], 1)[0]
    floats(a[3], 1)[0] = size
    floats(a[4], 1)[0] = limit / size if size > limit else f(1.0)
