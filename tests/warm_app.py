"""`mav` as a process that starts as a user's does, but whose engine comes from a process that has imported: see `warm.app`."""

from __future__ import annotations

import sys

import warm

if __name__ == "__main__":  # the engine's process imports this file too
    warm.take_engines(sys.argv[1])
    sys.argv[:2] = ["mav"]
    from openmav.cli.main import main

    sys.exit(main())
