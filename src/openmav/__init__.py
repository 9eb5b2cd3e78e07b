"""mav, the Model Activity Visualiser: what a causal language model does while it generates.

    import openmav

    for step in openmav.watch("Once upon a time", model="gpt2", max_new_tokens=20):
        print(step.token, step.entropy, step.values["mlp_norm"])

The names below are imported when they are first used, so that `import openmav` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmav.errors import EngineError, LoadError, MavError, UsageError
    from openmav.mav import MAV, watch
    from openmav.opening import open_session
    from openmav.record import Step
    from openmav.sampling import Sampling
    from openmav.session import Session
    from openmav.settings import Settings

__version__ = "1.0.0"
_HOMES = {
    "MAV": "mav",
    "watch": "mav",
    "Session": "session",
    "open_session": "opening",
    "Settings": "settings",
    "Sampling": "sampling",
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
    "open_session",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openmav' has no attribute '{name}'")
    return getattr(importlib.import_module(f"openmav.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
