"""Is the gradient the derivative of the cost? By the complex step, or by differences where that cannot tell."""

from .checking import THRESHOLD, GradientReport, TensorCheck, gradcheck
from .complex_step import ComplexStepNamespace

__all__ = ["THRESHOLD", "ComplexStepNamespace", "GradientReport", "TensorCheck", "gradcheck"]
