"""Engines that ask a model, and scorers that say what to ask."""
