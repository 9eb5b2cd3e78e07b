"""What a process of Python's for one task is given to find mav as its parent does."""

from __future__ import annotations

import os
import sys


def child_environment() -> dict[str, str]:
    """The environment of such a process: the parent's folders of modules, UTF-8, and one thread."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
