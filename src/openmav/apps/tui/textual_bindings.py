"""The rows of the table in keys.py as Textual bindings, and which keys a user may assign to them."""

from __future__ import annotations

from collections.abc import Iterable

from textual.binding import Binding, BindingType
from textual.keys import Keys, key_to_character

from openmav.apps.tui import keys

MODIFIERS = frozenset({"ctrl", "shift", "alt", "meta", "super", "hyper"})


def bindings(rows: Iterable[keys.Key] | None = None) -> list[BindingType]:
    """A binding for each row of the table; a controller's action is run by the app's action `perform`."""
    return [
        Binding(
            row.keys,
            f"perform('{row.id}')" if "." in row.action else row.action,
            row.description,
            id=row.id,
            show=False,
            priority=row.priority,
        )
        for row in (keys.KEYS if rows is None else rows)
    ]


def wrong_key(key: str) -> str | None:
    """Why this is not a key that a terminal can send; None if it may be one."""
    *modifiers, name = [key] if len(key) == 1 else key.split("+")
    if not key or not name:
        return f"'{key}' is not a key; write a letter, or a name such as space, f2, ctrl+p, comma"
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            return f"'{modifier}' in '{key}' is not a modifier. Known: {', '.join(sorted(MODIFIERS))}"
    known = len(name) == 1 or name in {one.value for one in Keys} or key_to_character(name) is not None
    return None if known else f"'{key}' is not a key; write a letter, or a name such as space, f2, ctrl+p, comma"
