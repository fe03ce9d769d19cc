"""What search.py imports from the folder where it stands."""

GRID = {"net__alpha": [1e-4, 10.0], "net__activation": ["tanh", "relu"]}
