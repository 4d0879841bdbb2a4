"""The jobs of a run: make the target, unlearn, score, attack. Inputs -> artifact."""
