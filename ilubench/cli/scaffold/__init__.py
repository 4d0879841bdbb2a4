"""A plugin's package, written for somebody who begins one."""

from ilubench.cli.scaffold.method import names_of, new_method

__all__ = ["names_of", "new_method"]
