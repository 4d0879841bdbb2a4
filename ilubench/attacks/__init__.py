"""Attacks, one file a class; the data sets and settings are YAML in `tasks/attacks/`."""
