"""Ranked boards as Markdown tables and as a page."""
