"""Finished runs as one page of HTML: the verdict first, then what it rests on."""

__all__ = ["PAGE"]

PAGE = "report.html"
"""What a run leaves in its folder."""
