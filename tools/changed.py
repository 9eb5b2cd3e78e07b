"""Which of the long tests a change calls for: those that watch a path which has changed.

python tools/changed.py            # each of them, and why it runs or not
python tools/changed.py exactness  # exit code 0 where it is called for, else 1
python tools/changed.py --marks    # for pytest -m: "not storm and not fuzz", say; empty where all are called for

The change is everything since the last commit that this branch shares with origin/main, or since the commit that SINCE names, and what is
not committed. Where that cannot be told (no origin/main, a shallow clone, main itself), all of them run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = (".ci", "Makefile", "pyproject.toml", "constraints.txt", "tests/conftest.py", "tools/changed.py")  # all of them watch these
WATCHES = {  # the marker of the tests: the files and folders that they watch
    "storm": (
        *("src/openmav/apps/tui", "src/openmav/panels", "src/openmav/paint", "src/openmav/view", "src/openmav/protocol"),
        *("src/openmav/record", "tests/tui", "tests/fakes.py", "tests/everything.py"),
    ),
    "fuzz": (
        *("src/openmav/conditions", "src/openmav/cli", "src/openmav/backends", "tools/fuzz_conditions.py"),
        *("tests/attacks", "tests/unit/test_conditions_fuzz.py", "tests/e2e/test_attacks.py"),
    ),
    "architectures": ("src/openmav/backends", "src/openmav/measures", "src/openmav/generation", "tests/backends"),
    "exactness": ("src/openmav/backends", "src/openmav/measures", "tools/transformerlens.py", "tests/backends", "docs/exactness.md"),
}


def git(*args: str, folder: Path) -> str | None:
    """What git answers, or None where it fails or is not there."""
    try:
        return subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def changed(folder: Path = ROOT, since: str = "") -> list[str] | None:
    """The paths that differ from `since`, or from what is shared with origin/main; None where that cannot be told."""
    base = git(*(("rev-parse", "--verify", f"{since}^{{commit}}") if since else ("merge-base", "HEAD", "origin/main")), folder=folder)
    if not base or (not since and base == git("rev-parse", "HEAD", folder=folder)):
        return None
    if git("rev-parse", "--is-shallow-repository", folder=folder) != "false":
        return None
    tracked = git("diff", "--name-only", "--no-renames", base, folder=folder)
    new = git("ls-files", "--others", "--exclude-standard", folder=folder)
    return None if tracked is None or new is None else sorted({*tracked.splitlines(), *new.splitlines()})


def called_for(paths: list[str] | None) -> dict[str, str]:
    """Each of the long tests with the path that calls for it; "" where none does."""
    if paths is None:
        return dict.fromkeys(WATCHES, "everything")
    return {
        name: next((path for path in paths if any(path == at or path.startswith(f"{at}/") for at in (*ALWAYS, *watched))), "")
        for name, watched in WATCHES.items()
    }


def main(args: list[str]) -> int:
    why = called_for(changed(since=os.environ.get("SINCE", "")))
    match args:
        case []:
            for name, path in why.items():
                print(f"{name:<14} {f'runs: {path} has changed' if path else 'not called for'}")
        case ["--marks"]:
            print(" and ".join(f"not {name}" for name, path in why.items() if not path))
        case [name] if name in WATCHES:
            return 0 if why[name] else 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
