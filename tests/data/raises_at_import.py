"""A plugin file that cannot be imported."""

raise OSError("no such instrument\nsecond line")
