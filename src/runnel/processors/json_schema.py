"""JSON schema: what is written must be a JSON value that a schema allows.

    l'_v = -inf  unless some allowed value begins with the written bytes and v, or v ends the text and the written bytes
           are one                                                                     (1)

The schema becomes a context-free grammar over bytes, read by llguidance; what of JSON Schema it does not know is
refused by name, never ignored. Properties come in the order of the schema. A text that is cut by max_new_tokens only
begins like a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runnel.codecs import Codec
from runnel.grammar import Grammar
from runnel.processors import GrammarConstraint

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """schema: a JSON Schema. codec: of the tokens. whitespace: a regular expression of what may stand between the parts
    of a value; None for nothing.
    """

    schema: Mapping[str, Any]
    codec: Codec
    whitespace: str | None = None


class JsonSchema(GrammarConstraint):
    config: Config

    def grammar(self) -> Grammar:
        return Grammar.of_json_schema(self.config.schema, self.config.codec, self.config.whitespace)


def reference(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a finished text is a value of the schema, for its first words: type, enum, properties, required,
    additionalProperties false, items, minItems, maxItems.
    """
    try:
        return _allowed(json.loads(text), schema)
    except json.JSONDecodeError:
        return False


def _allowed(value: Any, schema: Mapping[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    if schema["type"] == "object":
        known = schema["properties"]
        return (
            isinstance(value, dict)
            and set(schema.get("required", ())) <= set(value) <= set(known)
            and all(_allowed(part, known[name]) for name, part in value.items())
        )
    if schema["type"] == "array":
        return (
            isinstance(value, list)
            and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            and all(_allowed(part, schema["items"]) for part in value)
        )
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    found = kinds.get(type(value))
    return found == schema["type"] or (found, schema["type"]) == ("integer", "number")
