"""Finished runs shown: one run, several side by side, ranks, sweeps, gates."""
