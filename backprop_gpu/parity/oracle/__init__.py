"""The float64 oracle: what each operation of a training step should give, with a bound on what a device may give.

It needs NumPy and nothing else of the package, so that a fault elsewhere cannot excuse itself here.
"""
