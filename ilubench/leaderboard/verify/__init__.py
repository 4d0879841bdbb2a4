"""Rows measured again: published weights, pinned packages, drift."""
