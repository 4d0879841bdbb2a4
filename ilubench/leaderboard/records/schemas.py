"""The records' JSON schemas, as the package ships them for other programs."""

import json
from importlib import resources
from pathlib import Path

from pydantic import BaseModel

from ilubench.leaderboard.records.models import AttackEntry, Entry, Reported
from ilubench.records.results import newest_version

__all__ = ["schema_file", "schema_text", "shipped_schema", "write_schemas"]

KINDS: tuple[type[BaseModel], ...] = (Entry, Reported, AttackEntry)


def schema_file(kind: type[BaseModel]) -> str:
    """Return the name of a kind of record's schema, by its version: `entry-1.schema.json`."""
    return f"{kind.model_fields['kind'].default}-{newest_version(kind)}.schema.json"


def schema_text(kind: type[BaseModel]) -> str:
    """Return the schema that a kind of record has by its model.

    It says what a file's fields are. What `ilubench leaderboard check` finds beyond that (paths
    that lead out of the folder, figures that do not follow from the samples) no schema can say.
    """
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": schema_file(kind),
    }
    return json.dumps({**head, **kind.model_json_schema()}, indent=1) + "\n"


def shipped_schema(kind: type[BaseModel]) -> str:
    """Return the schema that the installed package has."""
    place = resources.files("ilubench.leaderboard.records") / "schema" / schema_file(kind)
    return place.read_text(encoding="utf-8")


def write_schemas(folder: Path) -> list[Path]:
    """Write all schemas into a folder; what is done after a change of the models."""
    written = []
    for kind in KINDS:
        path = folder / schema_file(kind)
        path.write_text(schema_text(kind), encoding="utf-8")
        written.append(path)
    return written
