"""Libraries that the engine has not needed yet are imported while nothing runs, so that the first preview of a sampling need not wait."""

from __future__ import annotations

import contextlib
import sys
import threading
from functools import cache

from openmav.settings.sampling import Sampling


@cache
def import_ahead() -> None:
    """What samplings with a temperature, interventions and constraints need, in a thread of its own; once."""
    if "torch" not in sys.modules:
        threading.Thread(target=_import, daemon=True, name="mav imports").start()


def _import() -> None:
    from openmav.generation.sampler import build_chain  # not above: the app's process imports this module and needs none of it

    with contextlib.suppress(ImportError):  # told where it is needed
        build_chain(Sampling(temperature=0.5))
