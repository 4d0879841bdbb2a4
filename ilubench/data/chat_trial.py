"""A chat template tried in a process of its own: one without end would hang whoever renders it.

Run as `python -P -m ilubench.data.chat_trial`, the template on stdin. Jinja's sandbox keeps a
template from files and programs; it bounds neither time nor memory.
"""

import contextlib
import itertools
import subprocess
import sys
from functools import cache
from typing import Any

__all__ = ["try_template"]

_SECONDS, _PATIENCE = 2, 60  # of the processor, and on a busy machine's clock
_MEMORY = 1 << 30  # bytes
_LETTERS = 1 << 20  # that may be written about the conversations below
_TALKS = ((1, "word"), (5, "many words, and a number: 12.\n" * 100))
"""Turns of the user, each but the last answered, and what is said: a template may look at both."""
_LONG, _WIDE = 3, 4  # what the process ends with


@cache
def try_template(template: str) -> str:
    """Return what is beyond reason in what a template does; empty where nothing is.

    A template that fails is not looked at: whoever renders it says why.
    """
    command = [sys.executable, "-P", "-m", __name__]
    try:
        code = subprocess.run(
            command,
            input=template.encode(errors="replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_PATIENCE,
        ).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code == _LONG:
        return f"writes more than {_LETTERS:,} letters about a few words"
    if code == _WIDE:
        return f"needs more than {_MEMORY >> 30} GB for a few words"
    return f"does not end within {_SECONDS} seconds" if code < 0 else ""


# --------------------------------------------------------------------------- the other process


def _main() -> int:
    with contextlib.suppress(ImportError, OSError, ValueError):  # what the system has not
        import resource

        for kind, limit in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _SECONDS)):
            resource.setrlimit(kind, (limit, limit))
    try:
        made = _environment().from_string(sys.stdin.buffer.read().decode())
    except MemoryError:
        return _WIDE
    except Exception:  # noqa: BLE001 - whatever a template leads to
        return 0
    kinds = itertools.product(_TALKS, (True, False), (True, False))
    codes = (_written(made, *talk, system=system, answered=end) for talk, system, end in kinds)
    return next(filter(None, codes), 0)


def _written(made: Any, asked: int, text: str, *, system: bool, answered: bool) -> int:  # noqa: ANN401
    turns = [*["system"] * system, *["user", "assistant"] * asked][: None if answered else -1]
    said = [{"role": role, "content": text} for role in turns]
    given = {"add_generation_prompt": not answered, "enable_thinking": False}
    letters = 0
    try:
        for piece in made.generate(messages=said, tools=None, documents=None, **given):
            letters += len(piece)
            if letters > _LETTERS:
                return _LONG
    except MemoryError:
        return _WIDE
    except Exception:  # noqa: BLE001 - one that takes no system turn, say
        return 0
    return 0


def _environment() -> Any:  # noqa: ANN401
    """An environment that takes what transformers' takes."""
    import json

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class _Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> Any:  # noqa: ANN401
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    found.filters["tojson"] = json.dumps
    found.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda _: "1 Jan 2001",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    return found


if __name__ == "__main__":
    sys.exit(_main())
