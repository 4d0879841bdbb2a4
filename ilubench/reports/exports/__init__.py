"""Finished runs in the formats of others; what a format cannot say is left out."""
