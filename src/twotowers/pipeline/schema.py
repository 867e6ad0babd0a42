"""What the record and the pages' facts of somebody else's run must look like, as JSON Schema.

Texts that a page shows as they are have no character that Markdown, HTML or a terminal takes for its own.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from ..chapters.registry import CHAPTERS
from ..publishing.run_folder import FORMAT
from ..study import SCALES
from .archive import NAME, ArchiveError
from .crate import METADATA, SPECIFICATION

Schema = dict[str, Any]

# No controls, no marks of direction, nothing of Markdown's or HTML's but what stands within words and numbers.
_NEVER = r"\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff<>{}\[\]`$\\|*~&"
PLAIN: Schema = {"type": "string", "pattern": rf"\A[^{_NEVER}]*\Z", "maxLength": 2000}
WORD: Schema = {"type": "string", "pattern": rf"\A[^{_NEVER}]+\Z", "maxLength": 200}
DIGEST: Schema = {"type": "string", "pattern": r"\A[0-9a-f]{64}\Z"}
DATE: Schema = {"type": "string", "pattern": r"\A\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(\+00:00|Z)\Z"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 10**9}
NUMBER: Schema = {"type": "number", "minimum": 0, "maximum": 10**15}
RUN_NAME: Schema = {"type": "string", "pattern": r"\A[a-z0-9]+(-[a-z0-9]+)*\Z", "maxLength": 150}
BOOL: Schema = {"type": "boolean"}
SMALL: Schema = {"anyOf": [PLAIN, {"type": ["integer", "number", "boolean", "null"]}]}  # what stands in a list of facts
KINDS = ("int", "float", "bool", "text", "bool?", "text?")  # of columns


def _object(fields: dict[str, Schema], *, optional: dict[str, Schema] | None = None) -> Schema:
    """These fields, and no others."""
    properties = {**fields, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(fields), "additionalProperties": False}


def _map(values: Schema, names: Schema = PLAIN, most: int = 1000) -> Schema:
    return {"type": "object", "propertyNames": names, "additionalProperties": values, "maxProperties": most}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


SOURCE: Schema = {"anyOf": [SMALL, {"type": "array", "items": SMALL}, _map(SMALL)]}
FILE: Schema = {"type": "string", "pattern": rf"\A{NAME.pattern}\Z", "maxLength": 200}
IDENTITY = _object({"identity": WORD, "residual": {"type": "number"}, "tolerance": NUMBER, "holds": {"const": True}})
MADE_OF = _object({"results": _map(SMALL), "look": _map(SMALL)})
MACHINE = _object({"processor": PLAIN, "cores": COUNT, "memory": COUNT | {"maximum": 10**15}, "gpu": _or_null(WORD)})
COST = _object({"peak_memory": _or_null(COUNT | {"maximum": 10**15}), "jobs": COUNT, "machine": MACHINE})
ENTRY = _object(
    {"made_of": MADE_OF, "seconds": NUMBER, "date": DATE, "files": _map(DIGEST, FILE)}, optional={"cost": COST}
)
RUN = _object(
    {
        "title": WORD,
        "model": WORD,
        "kind": {"enum": ["registry", "folder", "hub"]},
        "identity": WORD,
        "task": WORD,
        "own_task": BOOL,
        "loading": _map(SMALL, {"enum": ["dtype", "device_map", "quantise", "remote"]}),
        "scale": {"enum": list(SCALES)},
        "seed": COUNT,
    }
)
RECORD = _object(
    {
        "format": {"const": FORMAT},
        "run": RUN,
        "check": _object({"digest": DIGEST, "identities": {"type": "array", "items": IDENTITY, "minItems": 1}}),
        "chapters": _object(dict.fromkeys(CHAPTERS, ENTRY)),
        "moving": {"type": "object", "maxProperties": 0},
    }
)

PROVENANCE: Schema = _object(
    {
        "model": WORD,
        "family": WORD,
        "revision": WORD,
        "weights_sha256": _or_null(WORD),
        "dtype": _or_null(WORD),
        "device": _or_null(WORD),
        "task": WORD,
        "task_sha256": DIGEST,
        "task_source": _map(SOURCE),
        "shots": COUNT,
        "template": PLAIN,
        "scale": {"enum": list(SCALES)},
        "seed": COUNT,
        "specification_sha256": DIGEST,
        "packages": _map(WORD, WORD) | {"required": ["twotowers", "torch", "nnsight"]},
        "git_commit": _or_null(WORD),
        "command": WORD,
        "date": DATE,
    },
    optional={"quantised": _or_null(WORD)},
)
FACTS = _object(
    {
        **dict.fromkeys(("title", "model", "family", "task"), WORD),
        **dict.fromkeys(("template", "account"), PLAIN),
        **dict.fromkeys(
            ("n_layers", "n_heads", "selection_sets", "evaluation_sets", "shots", "queries", "draws", "seed"), COUNT
        ),
        "run": RUN_NAME,
        "rotary": BOOL,
        "labels": {"type": "array", "items": WORD, "minItems": 2, "maxItems": 8},
        "scale": {"enum": list(SCALES)},
        "provenance": PROVENANCE,
    }
)
COLUMN: Schema = {"type": "string", "pattern": r"\A\w[\w .%/()=+-]*\Z", "maxLength": 100}
TABLE = _object({"file": FILE, "kinds": _map({"enum": list(KINDS)}, COLUMN)})
INPUT: Schema = {"type": "string", "pattern": r"\A[A-Za-z]\w*\Z", "maxLength": 60}  # becomes part of a file's name
ITEM_NAME: Schema = {"type": "string", "pattern": r"\A[A-Za-z0-9]+(-[A-Za-z0-9]+)*\Z", "maxLength": 100}
ITEM = _object({"tables": _map(TABLE, INPUT), "values": _map({}, INPUT), "files": _map(FILE, INPUT)})
SHOWN = _object({"facts": FACTS, "items": _map(ITEM, ITEM_NAME)})

HANDED = _object({"made_of": WORD, "value": {}})

_ENTITY: Schema = {"type": "object", "required": ["@id", "@type"], "properties": {"@id": {"type": "string"}}}
CRATE: Schema = {
    "type": "object",
    "required": ["@graph"],
    "properties": {"@graph": {"type": "array", "items": _ENTITY}},
}
ROOT: Schema = {
    "type": "object",
    "required": ["identifier", "hasPart", "additionalProperty"],
    "properties": {
        "identifier": RUN_NAME,
        "hasPart": {"type": "array", "items": _object({"@id": FILE})},
        "additionalProperty": {"const": {"@id": SPECIFICATION}},
        "author": {"const": {"@id": "#who"}},
    },
}
PART: Schema = {"type": "object", "required": ["sha256"], "properties": {"sha256": DIGEST}}
SPECIFIED: Schema = {"type": "object", "required": ["value"], "properties": {"value": DIGEST}}
PERSON: Schema = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 200}}}


def require_shape(name: str, value: Any, schema: Schema) -> None:
    """Refuse what does not look as it must.

    Raises:
        ArchiveError: it does not; the message says where.
    """
    error = next(Draft202012Validator(schema).iter_errors(value), None)
    if error is not None:
        place = ascii(error.json_path[:120]) if name != METADATA else "an entity of it"
        raise ArchiveError(f"{name} is not as such a file is: see {place}")
