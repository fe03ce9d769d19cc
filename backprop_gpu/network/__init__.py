"""The L-layer network: parameters in one vector, the buffers of a step, the layer loop, the training step."""
