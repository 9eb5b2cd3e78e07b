"""The user's place: what is looked at and how. A View holds no lines and draws nothing; it is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmav.view.view import Selection, View

__all__ = ["Selection", "View"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'openmav.view' has no attribute '{name}'")
    return getattr(importlib.import_module("openmav.view.view"), name)
