"""CUDA through CuPy: the only folder that knows CuPy."""
