"""Kernels compiled by numba: fused loops, recorded once and played for many steps without Python."""
