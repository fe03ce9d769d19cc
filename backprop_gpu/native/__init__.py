"""The kernels in C++: the formulas of ``maths/`` once more, for the CPU and for CUDA."""
