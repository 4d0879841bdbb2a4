"""How commands are found and their arguments read, beyond what typer does."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Program", "ScoreCommand", "WordsCommand"]


class Program(TyperGroup):
    """A group of commands: `help` is one, and a command that is none gets a hint."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Read `help NAME` as `NAME --help`, and `~/` as the home folder."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, [_at_home(arg) for arg in args])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Return the command that is called.

        Raises:
            UsageError: there is none of that name.
        """
        name = args[0] if args else ""
        if name and name not in self.commands and not ctx.resilient_parsing:
            from ilubench.errors import UsageError, did_you_mean

            path = ctx.command_path
            remedy = did_you_mean(name, self.commands)
            if "=" in name and "run" in self.commands:
                remedy = f"write {path} run {' '.join(args)}"
            raise UsageError(f"no command {name!r}; {remedy} (`{path} --help` lists them)")
        return super().resolve_command(ctx, args)


def _at_home(arg: str) -> str:
    head, equals, path = arg.rpartition("=") if arg.startswith("--") else ("", "", arg)
    return head + equals + os.path.expanduser(path) if path[:2] == "~/" else arg  # noqa: PTH111


class WordsCommand(TyperCommand):
    """A command that takes `key=value` words: its help names the keys."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Read the arguments.

        Raises:
            UsageError: an option that is a key.
        """
        options = {name for param in self.get_params(ctx) for name in param.opts}
        for place, arg in enumerate(args):
            name, equals, text = arg.partition("=")
            if name.startswith("-") and name not in options and not ctx.resilient_parsing:
                self._refuse_key(name.lstrip("-"), text if equals else args[place + 1 :][:1])
        return super().parse_args(ctx, args)

    def _refuse_key(self, name: str, value: Sequence[str]) -> None:
        """Raise where what was typed as an option is a key of words."""
        from ilubench.errors import UsageError

        key = name.replace("-", "_") if "." not in name else name
        spec, groups = self._keys()
        if key.split(".")[0] not in (*spec.model_fields, *groups):
            return
        text = value if isinstance(value, str) else "".join(v for v in value if v[:1] != "-")
        raise UsageError(f"no option --{name}; write {key}={text or '<value>'}, without dashes")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """List the keys, as the specs have them."""
        from ilubench.experiments.keys import GROUPS_OF_KEYS
        from ilubench.specs.meaning import field_meanings

        del ctx
        spec, groups = self._keys()
        keys = [(field.name, field.meaning) for field in field_meanings(spec, nested=False)]
        below = {key: text for key, text in GROUPS_OF_KEYS.items() if key.split(".")[0] in groups}
        with formatter.section("Keys"):
            formatter.write_dl([*keys, *below.items()])
        formatter.write_paragraph()
        formatter.write_text("`ilubench describe NAME` explains a method, attack, suite or scorer.")

    def _keys(self) -> tuple[type["BaseModel"], tuple[str, ...]]:
        """The keys as fields, and what others can be set below."""
        from ilubench.specs import RunSpec

        return RunSpec, ("method", "attack", "data", "suite")


class ScoreCommand(WordsCommand):
    """A command whose words say how a model is scored."""

    def _keys(self) -> tuple[type["BaseModel"], tuple[str, ...]]:
        from ilubench.specs import ScoreSpec

        return ScoreSpec, ("data", "suite")
