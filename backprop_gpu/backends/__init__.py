"""Devices: array namespaces, transfers, buffers and kernels. Importing this loads no optional package."""

from .base import Backend
from .select import get_backend, require_owned

__all__ = ["Backend", "get_backend", "require_owned"]
