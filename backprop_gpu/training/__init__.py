"""The training loop and what surrounds it: batches, callbacks, metrics, model files."""
