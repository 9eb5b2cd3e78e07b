"""The reader's own keys: which bindings there are, and which names of keys are right."""

from __future__ import annotations

from collections.abc import Mapping

from textual.binding import Binding
from textual.keys import Keys, key_to_character

from openmav.apps.tui.keys import BINDINGS

MODIFIERS = frozenset({"ctrl", "shift", "alt", "meta", "super", "hyper"})
BINDING_IDS = frozenset(binding.id for binding in BINDINGS if isinstance(binding, Binding) and binding.id)


def wrong_key(key: str) -> str | None:
    """Why this is no key that a terminal could send; None where it may be one."""
    *modifiers, name = [key] if len(key) == 1 else key.split("+")
    if not key or not name:
        return f"'{key}' is not a key; write a letter, or a name such as space, f2, ctrl+p, comma"
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            return f"'{modifier}' in '{key}' is not a modifier. Known: {', '.join(sorted(MODIFIERS))}"
    known = len(name) == 1 or name in {one.value for one in Keys} or key_to_character(name) is not None
    return None if known else f"'{key}' is not a key; write a letter, or a name such as space, f2, ctrl+p, comma"


def keys_of(own: Mapping[str, str]) -> dict[str, str]:
    """{id: keys} of all bindings, with the reader's own in place of mav's."""
    mavs = {binding.id: binding.key for binding in BINDINGS if isinstance(binding, Binding) and binding.id}
    return {**mavs, **own}
