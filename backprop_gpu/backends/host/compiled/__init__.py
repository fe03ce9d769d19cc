"""Kernels compiled by numba: fused loops in float32, recorded once and played for many steps without Python."""
