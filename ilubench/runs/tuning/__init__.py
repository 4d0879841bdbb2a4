"""The tuning protocol: every method's settings from the same budget, before any attack."""
