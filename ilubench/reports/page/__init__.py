"""Finished runs as one page of HTML: the verdict first, then what it rests on."""
