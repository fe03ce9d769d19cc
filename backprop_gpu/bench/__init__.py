"""Measuring training and prediction beside other libraries, equal work verified first (``backprop-gpu bench``)."""
