"""Measures training and prediction beside other libraries, equal work verified first: ``python -m benchmarks``.

Run from a checkout; the installed package does not have this folder. Nothing here is imported by ``backprop_gpu``.
"""
