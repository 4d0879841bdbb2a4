"""Committed records held against their own samples and against the suite."""
