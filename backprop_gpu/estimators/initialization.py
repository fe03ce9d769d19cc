"""Initial weights, drawn from scikit-learn's RandomState in its order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Parameters = tuple[list[np.ndarray], list[np.ndarray]]


def sklearn_start(
    random_state: np.random.RandomState, sizes: Sequence[int], logistic: Sequence[bool], dtype: str
) -> Parameters:
    """coefs (n_{l-1}, n_l) and intercepts (n_l,), from U(-a, a), a = sqrt(6 / (n_{l-1} + n_l)).

    2 stands in place of 6 for the logistic function (``logistic``, one for each layer; the output counts as the last
    hidden layer). Drawn in float64 whatever ``dtype``, weights before biases, layer by layer, as scikit-learn does.
    Source: Glorot & Bengio 2010, equation 16.
    """
    coefs, intercepts = [], []
    for k, n, small in zip(sizes, sizes[1:], logistic, strict=False):
        bound = math.sqrt((2.0 if small else 6.0) / (k + n))
        coefs.append(random_state.uniform(-bound, bound, (k, n)).astype(dtype, copy=False))
        intercepts.append(random_state.uniform(-bound, bound, n).astype(dtype, copy=False))
    return coefs, intercepts
