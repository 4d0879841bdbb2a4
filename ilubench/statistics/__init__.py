"""Figures and intervals from arrays of samples; pure functions."""
