"""Fault diagnosis: what a wrong tensor looks like, and the number that gave it away."""
