"""Prepares a JSON schema for llguidance: what llguidance would misread is rewritten, or refused by name."""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

from openmav.errors import UsageError

Schema: TypeAlias = dict[str, Any] | bool

EXACT = 2**53  # integers up to here are exact, larger ones the nearest float
_VALUES = ("const", "enum")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_NOTES = ("default", "examples", "title", "description", "$comment", "$id", "$schema", "required")
_YEAR = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DAYS = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])"
DATE = f"^({_YEAR}-({_DAYS})|{_LEAP}-02-29)$"  # valid dates; llguidance's own pattern has the year 0 and the 31st of every month


def read(text: str) -> Schema:
    """Parse a schema. Raises UsageError, in one line, for what is not JSON or not a schema."""
    try:
        schema = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the JSON schema is not JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise UsageError("a JSON schema is an object in braces, or true or false")
    return schema


def prepared(schema: Schema) -> dict[str, Any]:
    """The schema as an object that llguidance represents exactly. Raises UsageError for `false` and for numbers that it can't."""
    if schema is False:
        raise UsageError("the JSON schema is false; no text at all would match it")
    return {} if schema is True else _schema(schema)


def _schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_schema(one) for one in schema]
    if not isinstance(schema, dict):
        _need_exact(schema)
        return schema
    prepared_keys = {}
    for key, value in schema.items():
        if key in _NOTES:
            prepared_keys[key] = value
        elif key in _VALUES:
            _need_exact(value)
            prepared_keys[key] = value
        elif key in _MAPS and isinstance(value, dict):
            prepared_keys[key] = {name: _schema(one) for name, one in value.items()}
        else:
            prepared_keys[key] = _schema(value)
    return _with_real_dates(prepared_keys)


def _with_real_dates(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("format") != "date" or "pattern" in schema:
        return schema
    return {key: value for key, value in schema.items() if key != "format"} | {"pattern": DATE}


def _need_exact(value: Any) -> None:
    """Raises UsageError for a number that would lose digits."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _need_exact(one)
    elif (isinstance(value, int) and abs(value) > EXACT) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"the JSON schema cannot be used: the number {str(value)[:40]} is too large to be kept exactly; use a string")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
