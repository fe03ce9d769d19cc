"""The loss of several class labels: the sum of their cross-entropies, on every namespace, with its derivative."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

from backprop_gpu import DenseNet, gradcheck
from backprop_gpu.errors import ConfigError
from backprop_gpu.maths.activations import softmax
from backprop_gpu.maths.losses import CategoricalCrossEntropy, GroupedCrossEntropy, get_loss

GROUPS = (3, 1, 2)


def batch(m: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Logits (6, m), and one-hot columns of a label for each group."""
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, n, m) for n in GROUPS]
    Y = np.vstack([np.arange(n)[:, None] == y for n, y in zip(GROUPS, labels, strict=True)])
    return 2.0 * rng.standard_normal((6, m)), Y.astype(np.float64)


def by_group(f: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    """f of each group's rows."""
    return [f(*parts) for parts in zip(*(np.split(a, np.cumsum(GROUPS)[:-1]) for a in arrays), strict=True)]


@pytest.mark.parametrize("xp", [np, array_api_strict])
def test_it_is_the_sum_over_groups(xp: Any) -> None:
    Z, Y = batch()
    one, loss = CategoricalCrossEntropy(), GroupedCrossEntropy(GROUPS)
    z, y = xp.asarray(Z), xp.asarray(Y)
    value = sum(by_group(lambda a, b: one.value(np, a, b), Z, Y))
    np.testing.assert_allclose(np.asarray(loss.value(xp, z, y)), value, rtol=1e-14)
    delta = np.vstack(by_group(lambda a, b: one.delta(np, a, b), Z, Y))
    np.testing.assert_allclose(np.asarray(loss.delta(xp, z, y)), delta, rtol=1e-14)
    AL = loss.link.forward(xp, z)
    np.testing.assert_allclose(np.asarray(AL), np.vstack(by_group(lambda a: softmax(np, a), Z)), rtol=1e-14)
    # The literal form is the fused one: dL/dAL through the link's vjp.
    literal = loss.link.vjp(xp, loss.literal_dAL(xp, AL, y), z, AL)
    np.testing.assert_allclose(np.asarray(literal), delta, rtol=1e-12, atol=1e-15)


def test_one_group_is_the_categorical_loss() -> None:
    Z, Y = batch()
    one, same = CategoricalCrossEntropy(), GroupedCrossEntropy((3,))
    assert np.array_equal(same.value(np, Z[:3], Y[:3]), one.value(np, Z[:3], Y[:3]))
    assert np.array_equal(same.delta(np, Z[:3], Y[:3]), one.delta(np, Z[:3], Y[:3]))


@pytest.mark.parametrize("device", ["cpu", "array_api_strict:device1"])
def test_a_networks_gradient_is_the_derivative_by_the_complex_step(device: str) -> None:
    _, Y = batch(9)
    net = DenseNet(
        [4, 5, 6], activation="tanh", loss={"name": "grouped_cross_entropy", "groups": [3, 1, 2]}, device=device
    )
    report = gradcheck(net, np.random.default_rng(1).standard_normal((9, 4)), Y.T, l2=0.1)
    assert report.ok
    assert report.error < 1e-12


def test_it_is_found_by_a_mapping_and_needs_its_groups() -> None:
    loss = get_loss({"name": "grouped_cross_entropy", "groups": [3, 1, 2]})
    assert loss == GroupedCrossEntropy(GROUPS)
    assert get_loss(loss) is loss
    assert get_loss(loss.spec()) == loss
    for wrong in ([], [0], [1.5], "32", None):
        with pytest.raises(ConfigError, match="groups must be a list of numbers of classes"):
            GroupedCrossEntropy(wrong)  # type: ignore[arg-type]
