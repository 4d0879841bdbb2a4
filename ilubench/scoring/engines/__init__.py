"""Engines: a loaded model that answers in token ids."""
