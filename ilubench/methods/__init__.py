"""Unlearning methods, one file each; found by entry point."""
