"""The CPU: the kernels of the native library, and what the processor and NumPy's BLAS are."""
