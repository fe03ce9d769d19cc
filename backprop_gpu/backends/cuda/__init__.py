"""CUDA through CuPy: the only folder that imports CuPy."""
