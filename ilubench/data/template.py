"""What a template of a role's rows names."""

import re
from collections.abc import Iterable
from string import Formatter

__all__ = ["template_columns"]


def template_columns(*templates: str, labels: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the columns that ``str.format`` templates name; of one that cannot be read, none.

    Args:
        templates: of prompt and completion.
        labels: columns that have names for their integers.
    """
    names = dict.fromkeys(labels)
    for template in templates:
        try:
            found = [name for _, name, _, _ in Formatter().parse(template) if name]
        except ValueError:  # `render_template` says what is wrong with it
            continue
        names |= dict.fromkeys(re.split(r"[.\[]", name)[0] for name in found)
    return tuple(names)
