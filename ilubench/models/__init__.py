"""Weights and tokenizers found, loaded, saved; forward passes."""
