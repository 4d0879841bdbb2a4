"""Rows from anywhere, checked, made into batches; generated text; what the hub holds."""
