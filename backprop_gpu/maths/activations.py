"""Activation functions g and their vector-Jacobian products, each directly under its forward.

Every function takes the namespace first. Z is (n, m), examples are columns. A vjp takes dA, the pre-activation Z and
the activation A = g(Z), uses what it needs of them, and returns dZ = dA * g'(Z).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._typing import Array, Namespace
from ..errors import ConfigError, did_you_mean
from .registry import is_number
from .special import erf


def identity(xp: Namespace, Z: Array) -> Array:
    """A = Z."""
    return +Z


def identity_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA."""
    return +dA


def sigmoid(xp: Namespace, Z: Array) -> Array:
    """A = 1 / (1 + e^-Z), through e^-|Z| so that nothing overflows (course week 2)."""
    e = xp.exp(xp.minimum(Z, -Z))
    return xp.where(xp.greater(Z, 0.0), 1.0, e) / (1.0 + e)


def sigmoid_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * A (1 - A)."""
    return dA * (A * (1.0 - A))


def tanh(xp: Namespace, Z: Array) -> Array:
    """A = tanh Z."""
    return xp.tanh(Z)


def tanh_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * (1 - A^2)."""
    return dA * (1.0 - A * A)


def relu(xp: Namespace, Z: Array) -> Array:
    """A = max(Z, 0)."""
    return xp.maximum(Z, 0.0)


def relu_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA where Z > 0, else 0 (at Z = 0 the derivative is taken as 0, as in the course)."""
    return xp.where(xp.greater(Z, 0.0), dA, 0.0)


def leaky_relu(xp: Namespace, Z: Array, *, slope: float = 0.01) -> Array:
    """A = Z where Z > 0, else slope * Z (Maas, Hannun & Ng 2013)."""
    return xp.where(xp.greater(Z, 0.0), Z, slope * Z)


def leaky_relu_vjp(xp: Namespace, dA: Array, Z: Array, A: Array, *, slope: float = 0.01) -> Array:
    """dZ = dA where Z > 0, else slope * dA."""
    return xp.where(xp.greater(Z, 0.0), dA, slope * dA)


def elu(xp: Namespace, Z: Array, *, alpha: float = 1.0) -> Array:
    """A = Z where Z > 0, else alpha (e^Z - 1) (Clevert, Unterthiner & Hochreiter 2016)."""
    return xp.where(xp.greater(Z, 0.0), Z, alpha * xp.expm1(xp.minimum(Z, 0.0)))


def elu_vjp(xp: Namespace, dA: Array, Z: Array, A: Array, *, alpha: float = 1.0) -> Array:
    """dZ = dA where Z > 0, else dA * (A + alpha), since alpha e^Z = A + alpha there."""
    return xp.where(xp.greater(Z, 0.0), dA, dA * (A + alpha))


def gelu(xp: Namespace, Z: Array) -> Array:
    """A = Z Phi(Z), Phi(Z) = (1 + erf(Z / sqrt 2)) / 2 (Hendrycks & Gimpel 2016, the exact form)."""
    return Z * (0.5 * (1.0 + erf(xp, Z * math.sqrt(0.5))))


def gelu_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * (Phi(Z) + Z phi(Z)), phi(Z) = e^(-Z^2/2) / sqrt(2 pi)."""
    cdf = 0.5 * (1.0 + erf(xp, Z * math.sqrt(0.5)))
    pdf = xp.exp(-0.5 * (Z * Z)) * (1.0 / math.sqrt(2.0 * math.pi))
    return dA * (cdf + Z * pdf)


_TANH_GELU = math.sqrt(2.0 / math.pi)
_TANH_GELU_CUBIC = 0.044715


def gelu_tanh(xp: Namespace, Z: Array) -> Array:
    """A = Z/2 (1 + tanh u), u = sqrt(2/pi) (Z + 0.044715 Z^3) (Hendrycks & Gimpel 2016, the tanh form)."""
    u = _TANH_GELU * (Z + _TANH_GELU_CUBIC * (Z * Z * Z))
    return 0.5 * Z * (1.0 + xp.tanh(u))


def gelu_tanh_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * ((1 + t)/2 + Z/2 (1 - t^2) u'), t = tanh u, u' = sqrt(2/pi) (1 + 3 * 0.044715 Z^2)."""
    t = xp.tanh(_TANH_GELU * (Z + _TANH_GELU_CUBIC * (Z * Z * Z)))
    # Beyond 100, t is 1 and the second term 0 in every precision; the square of a huge Z would make it 0 * inf.
    bounded = xp.minimum(xp.maximum(Z, -100.0), 100.0)
    slope = _TANH_GELU * (1.0 + (3.0 * _TANH_GELU_CUBIC) * (bounded * bounded))
    return dA * (0.5 * (1.0 + t) + 0.5 * Z * (1.0 - t * t) * slope)


def silu(xp: Namespace, Z: Array) -> Array:
    """A = Z sigmoid(Z) (Elfwing, Uchibe & Doya 2018; also called swish)."""
    return Z * sigmoid(xp, Z)


def silu_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * s (1 + Z (1 - s)), s = sigmoid(Z)."""
    s = sigmoid(xp, Z)
    return dA * (s * (1.0 + Z * (1.0 - s)))


def softplus(xp: Namespace, Z: Array) -> Array:
    """A = log(1 + e^Z) = max(Z, 0) + log1p(e^-|Z|) (Dugas et al. 2001)."""
    return xp.maximum(Z, 0.0) + xp.log1p(xp.exp(xp.minimum(Z, -Z)))


def softplus_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * sigmoid(Z)."""
    return dA * sigmoid(xp, Z)


_SELU = 1.0507009873554805  # lambda of the paper, for which mean 0 and variance 1 are a fixed point
_SELU_ALPHA = 1.7580993408473766  # lambda alpha


def selu(xp: Namespace, Z: Array) -> Array:
    """A = lambda Z where Z > 0, else lambda alpha (e^Z - 1) (Klambauer, Unterthiner, Mayr & Hochreiter 2017)."""
    return xp.where(xp.greater(Z, 0.0), _SELU * Z, _SELU_ALPHA * xp.expm1(xp.minimum(Z, 0.0)))


def selu_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = lambda dA where Z > 0, else dA * (A + lambda alpha)."""
    return xp.where(xp.greater(Z, 0.0), _SELU * dA, dA * (A + _SELU_ALPHA))


def mish(xp: Namespace, Z: Array) -> Array:
    """A = Z tanh(log(1 + e^Z)) (Misra 2020)."""
    return Z * xp.tanh(softplus(xp, Z))


def mish_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * (t + Z s (1 - t^2)), t = tanh(softplus(Z)), s = sigmoid(Z)."""
    t = xp.tanh(softplus(xp, Z))
    return dA * (t + Z * (sigmoid(xp, Z) * (1.0 - t * t)))


def softmax(xp: Namespace, Z: Array) -> Array:
    """A[k] = e^Z[k] / sum_j e^Z[j] down each column, shifted by the column's maximum (course 2, week 3)."""
    e = xp.exp(Z - xp.max(Z, axis=0, keepdims=True))
    return e / xp.sum(e, axis=0, keepdims=True)


def softmax_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = A * (dA - sum_k dA[k] A[k])."""
    return A * (dA - xp.sum(dA * A, axis=0, keepdims=True))


def exponential(xp: Namespace, Z: Array) -> Array:
    """A = e^Z: the mean of a Poisson output whose logit is Z."""
    return xp.exp(Z)


def exponential_vjp(xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
    """dZ = dA * A."""
    return dA * A


@dataclass(frozen=True)
class Activation:
    """An activation chosen by name, with its parameter; or one of your own, ``Activation("snake", snake, snake_vjp)``.

    It is given again to what reads its network from a file: ``load(..., custom=[...])``.

    Attributes
    ----------
    name : str
        Key of the registry.
    parameters : tuple of (name, value)
        ``slope`` of leaky_relu, ``alpha`` of elu; empty for the others.
    output_only : bool
        Whether it couples the units of a layer, or is meant for outputs only (softmax, exponential).
    rectifier : bool
        Whether initial weights are He's where ``initializer`` is ``"auto"``, as suits relu and its smooth kin; else
        Glorot's.
    """

    name: str
    forward_function: Callable[..., Array]
    vjp_function: Callable[..., Array]
    parameters: tuple[tuple[str, float], ...] = ()
    output_only: bool = False
    rectifier: bool = False

    def forward(self, xp: Namespace, Z: Array) -> Array:
        """g(Z), (n, m) -> (n, m)."""
        return self.forward_function(xp, Z, **dict(self.parameters))

    def vjp(self, xp: Namespace, dA: Array, Z: Array, A: Array) -> Array:
        """dA * g'(Z), (n, m)."""
        return self.vjp_function(xp, dA, Z, A, **dict(self.parameters))

    def spec(self) -> str | dict[str, Any]:
        """The name, or ``{"name": ..., parameter: ...}``: what :func:`get_activation` takes back."""
        return {"name": self.name, **dict(self.parameters)} if self.parameters else self.name


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("identity", identity, identity_vjp),
        Activation("sigmoid", sigmoid, sigmoid_vjp),
        Activation("tanh", tanh, tanh_vjp),
        Activation("relu", relu, relu_vjp, rectifier=True),
        Activation("leaky_relu", leaky_relu, leaky_relu_vjp, (("slope", 0.01),), rectifier=True),
        Activation("elu", elu, elu_vjp, (("alpha", 1.0),), rectifier=True),
        Activation("gelu", gelu, gelu_vjp, rectifier=True),
        Activation("gelu_tanh", gelu_tanh, gelu_tanh_vjp, rectifier=True),
        Activation("silu", silu, silu_vjp, rectifier=True),
        Activation("softplus", softplus, softplus_vjp, rectifier=True),
        Activation("selu", selu, selu_vjp),
        Activation("mish", mish, mish_vjp, rectifier=True),
        Activation("softmax", softmax, softmax_vjp, output_only=True),
        Activation("exponential", exponential, exponential_vjp, output_only=True),
    )
}


def _checked(a: Activation) -> Activation:
    parameters = a.parameters if isinstance(a.parameters, tuple) else None
    if parameters is None or not all(isinstance(p, tuple) and len(p) == 2 and is_number(p[1]) for p in parameters):
        raise ConfigError(
            f"activation {a.name!r}: parameters must be pairs such as (('slope', 0.1),), got {a.parameters}"
        )
    given: Any = a  # whose fields may be anything
    forward = callable(given.forward_function) or type(a).forward is not Activation.forward
    vjp = callable(given.vjp_function) or type(a).vjp is not Activation.vjp
    if not (isinstance(given.name, str) and forward and vjp):
        raise ConfigError(f"an Activation has a name and two functions, forward(xp, Z) and vjp(xp, dA, Z, A); got {a}")
    return a


def get_activation(spec: str | dict[str, Any] | Activation) -> Activation:
    """Look an activation up: ``"relu"``, ``{"name": "leaky_relu", "slope": 0.2}`` or an Activation.

    Raises
    ------
    ConfigError
        For an unknown name or parameter.
    """
    if isinstance(spec, Activation):
        return _checked(spec)
    given = dict(spec) if isinstance(spec, dict) else {"name": spec}
    name = given.pop("name", None)
    if not isinstance(name, str):
        own = "an Activation('mine', forward, vjp)"
        raise ConfigError(f"the activation must be a name, a mapping with a name, or {own}; got {spec!r}")
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"unknown activation {name!r}{did_you_mean(str(name), ACTIVATIONS)}; known: {', '.join(ACTIVATIONS)}"
        )
    base = ACTIVATIONS[name]
    known = dict(base.parameters)
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"activation {name!r} has no parameter {key!r}; it takes {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"activation {name!r}: {key} must be a finite number, got {value!r}")
        known[key] = float(value)
    return replace(base, parameters=tuple(known.items()))
