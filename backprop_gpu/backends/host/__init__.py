"""NumPy's own kernels: the same equations, written into their buffers."""
