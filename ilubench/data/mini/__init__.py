"""The embedded miniature world."""
