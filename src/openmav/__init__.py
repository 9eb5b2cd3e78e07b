"""mav, the Model Activity Visualiser: what a causal language model does while it generates.

    import openmav

    for step in openmav.watch("Once upon a time", model="gpt2", max_new_tokens=20):
        print(step.token, step.entropy, step.values["mlp_norm"])

The names below are imported when they are first used, so that `import openmav` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from openmav.version import __version__

if TYPE_CHECKING:
    from openmav.errors import EngineError, LoadError, MavError, UsageError
    from openmav.generation.session import Session
    from openmav.library import attach, open_session, watch
    from openmav.mav import MAV
    from openmav.record import Step
    from openmav.settings import Settings
    from openmav.settings.sampling import Sampling

_HOMES = {
    "MAV": "mav",
    "watch": "library",
    "attach": "library",
    "Session": "generation.session",
    "open_session": "library",
    "Settings": "settings",
    "Sampling": "settings.sampling",
    "Step": "record",
    "MavError": "errors",
    "UsageError": "errors",
    "LoadError": "errors",
    "EngineError": "errors",
}
__all__ = [
    "MAV",
    "EngineError",
    "LoadError",
    "MavError",
    "Sampling",
    "Session",
    "Settings",
    "Step",
    "UsageError",
    "__version__",
    "attach",
    "open_session",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openmav' has no attribute '{name}'")
    return getattr(importlib.import_module(f"openmav.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
