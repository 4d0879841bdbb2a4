"""Finished runs packed as entries and attacks."""
