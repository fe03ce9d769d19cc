"""Kernels compiled by LLVM: fused loops, recorded once and played for many steps without Python."""
