"""A plugin's package, written for somebody who begins one."""

from ilubench.cli.scaffold.method import Names, names_of, new_method

__all__ = ["Names", "names_of", "new_method"]
