"""Which of the long tests are called for: those that watch a file that is not as it was when they last passed.

python tools/changed.py            # each of them, and whether it runs
python tools/changed.py exactness  # exit code 0 where it is called for, else 1
python tools/changed.py --marks    # for pytest -m: "not storm and not fuzz", say; empty where all are called for
python tools/changed.py --passed   # all have passed on these files: note it in tests/passed.json

tests/passed.json has a sum of the files that each of them watches, from the last `make check-all` that passed. Where there is no git, or no
such sum, all of them run.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PASSED = "tests/passed.json"
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


def files(folder: Path) -> list[str] | None:
    """The files of the project that are there, committed or not, without those that git ignores; None where git can't say."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return None
    return sorted({name for name in listed.split("\0") if name and (folder / name).is_file()})


def sums(folder: Path = ROOT) -> dict[str, str] | None:
    """A sum for each of the long tests, of the names and texts of the files that it watches; None where git can't say which there are."""
    names = files(folder)
    if names is None:
        return None
    texts = {name: hashlib.sha256((folder / name).read_bytes().replace(b"\r\n", b"\n")).hexdigest() for name in names}
    return {marker: _sum({name: text for name, text in texts.items() if watched(name, marker)}) for marker in WATCHES}


def watched(name: str, marker: str) -> bool:
    """Whether these long tests watch the file of that name."""
    return any(name == path or name.startswith(f"{path}/") for path in (*ALWAYS, *WATCHES[marker]))


def _sum(texts: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {text}\n" for name, text in texts.items()).encode()).hexdigest()[:16]


def called_for(folder: Path = ROOT) -> dict[str, bool]:
    """Whether each of the long tests runs."""
    now = sums(folder)
    try:
        passed = json.loads((folder / PASSED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        passed = {}
    return {marker: now is None or now[marker] != passed.get(marker) for marker in WATCHES}


def main(args: list[str]) -> int:
    match args:
        case []:
            for marker, runs in called_for().items():
                print(f"{marker:<14} {'runs: what it watches is not as it last passed' if runs else 'not called for'}")
        case ["--marks"]:
            print(" and ".join(f"not {marker}" for marker, runs in called_for().items() if not runs))
        case ["--passed"]:
            (ROOT / PASSED).write_text(json.dumps(sums() or {}, indent=4) + "\n", encoding="utf-8")
        case [marker] if marker in WATCHES:
            return 0 if called_for()[marker] else 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
