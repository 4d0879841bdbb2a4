"""Finished runs as figures, by matplotlib: for the report's page, and as files for papers."""
