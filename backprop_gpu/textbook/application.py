"""The application that follows it: training, prediction; and a check of the reader's own gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._typing import Array
from ..errors import ConfigError
from .arrays import floating
from .steps import (
    L_model_backward,
    L_model_forward,
    Parameters,
    compute_cost,
    initialize_parameters_deep,
    update_parameters,
)

if TYPE_CHECKING:
    from ..explain import Diagnosis


def L_layer_model(
    X: Array,
    Y: Array,
    layers_dims: Sequence[int],
    learning_rate: float = 0.0075,
    num_iterations: int = 3000,
    print_cost: bool = False,
) -> tuple[Parameters, list[float]]:
    """Train [linear -> relu] * (L - 1) -> linear -> sigmoid by gradient descent on the whole batch (the application).

    The weights begin as the application's, ``initialize_parameters_deep(layers_dims, seed=1, scale="1/sqrt_n")``.

    Parameters
    ----------
    X, Y : array (n_0, m), (n_L, m)
        NumPy's, as the parameters are; Y holds 0 and 1.
    layers_dims : sequence of int
        ``[n_0, ..., n_L]``.
    learning_rate : float, default 0.0075
    num_iterations : int, default 3000
        Updates, each with the gradient of all m examples.
    print_cost : bool, default False
        Print J before every hundredth update, and before the last one.

    Returns
    -------
    parameters : dict
    costs : list of float
        J at those same times.

    Raises
    ------
    ConfigError
        For sizes or a number of iterations that cannot be used.
    ShapeError, DataError, DeviceError
        For an X or Y that does not fit.
    """
    if isinstance(num_iterations, bool) or not isinstance(num_iterations, int) or num_iterations < 0:
        raise ConfigError(f"num_iterations must be a whole number from 0, got {num_iterations!r}")
    parameters, costs = initialize_parameters_deep(layers_dims, seed=1, scale="1/sqrt_n"), []
    for i in range(num_iterations):
        AL, caches = L_model_forward(X, parameters)
        if i % 100 == 0 or i == num_iterations - 1:
            costs.append(float(compute_cost(AL, Y)))
            if print_cost:
                print(f"Cost after iteration {i}: {costs[-1]}")
        parameters = update_parameters(parameters, L_model_backward(AL, Y, caches), learning_rate)
    return parameters, costs


def check(parameters: Mapping[str, Any], grads: Mapping[str, Any], X: Any, Y: Any, **options: Any) -> Diagnosis:
    """Is your own gradient of the course's network right, and if not, what went wrong?

    Parameters
    ----------
    parameters : mapping
        ``W1 (n_1, n_0), b1 (n_1, 1), ..., WL, bL``.
    grads : mapping
        ``dW1, db1, ..., dWL, dbL`` as your code computed them; other names are not looked at.
    X, Y : array (n_0, m), (n_L, m)
        The batch, examples as columns.
    **options
        Of :func:`backprop_gpu.diagnose`: ``l2`` (the course's lambd), ``keep_prob`` with ``masks={1: D1, ...}`` of the
        course's shapes (n_l, m), ``activation``, ``loss``, ...

    Returns
    -------
    Diagnosis
        ``.ok``; ``.summary()`` says what is wrong, in words, with the formula that is meant.
    """
    from ..explain.diagnosing import diagnose, to_numpy

    if "masks" in options:
        options["masks"] = {l: to_numpy(D, f"D{l}").T for l, D in options["masks"].items()}
    return diagnose(parameters, grads, to_numpy(X, "X").T, to_numpy(Y, "Y").T, **options)


def predict(X: Array, y: Array, parameters: Mapping[str, Array]) -> Array:
    """Print the accuracy and return 1.0 where AL > 0.5, else 0.0 (``dnn_app_utils_v2``).  X (n_0, m), y (n_L, m).

    The accuracy is summed in the course's order, which may print 0.9999999999999998 for 1.
    """
    AL, _ = L_model_forward(X, parameters)
    xp, AL, y = floating(AL, y, "y")
    p = xp.asarray(xp.greater(AL, 0.5), dtype=AL.dtype)
    hits = xp.asarray(xp.equal(p, y), dtype=AL.dtype)
    print(f"Accuracy: {float(xp.sum(hits / AL.size))}")
    return p
