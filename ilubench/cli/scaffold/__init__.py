"""A plugin's files, written for somebody who begins one."""

from ilubench.cli.scaffold.writing import names_of, new_attack, new_method

__all__ = ["names_of", "new_attack", "new_method"]
