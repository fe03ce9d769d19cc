"""A step whose loss is summed over outputs, and scikit-learn's scaling of several outputs.

The cost of our losses averages outputs. scikit-learn's Poisson loss sums them; its squared error reports the average
and follows the gradient of the sum (scikit-learn#8349), which is not the derivative of what it reports.
"""

from __future__ import annotations

from typing import Any

from ..maths.ledger import Denominator
from ..network.dense_net import DenseNet
from ..network.step import TrainingStep


class ScaledStep(TrainingStep):
    """J = K mean L + penalty with K outputs; with ``report_mean`` the cost that is left is K (mean L + penalty).

    ``report_divisor`` is what the cost has to be divided by: 1, or K with ``report_mean``. The gradient is that of the
    first form in both.
    """

    def __init__(self, net: DenseNet, optimizer: Any, *, report_mean: bool, **settings: Any) -> None:
        self.outputs, self.report_mean = net.sizes[-1], report_mean
        super().__init__(net, optimizer, **settings)
        self.report_divisor = self.outputs if report_mean else 1
        with net.backend.activate():
            self._unused = net.backend.zeros((net.params.n_weights if report_mean else 1,), net.dtype)

    def numbers(self, k: int, D: Denominator) -> list[float]:
        """Those of a step, with K/D in place of 1/D, and the strength of the penalty that is only reported."""
        inverse, l1, l2, *scalars = super().numbers(k, D)
        return [self.outputs * inverse, l1, l2, *scalars, (self.outputs - 1) * l2]

    def penalty(self) -> None:
        """The penalty; and K - 1 times its value, whose gradient goes nowhere."""
        super().penalty()
        if self.report_mean and self.l2:
            p, n = self.net.params, self.net.params.n_weights
            with self.net.backend.activate():
                self.net.kernels.penalty(p.theta[:n], self._unused, l1=None, l2=self._hyper[-1:], value=self.value)
