"""Documents that repeat what the program says must say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_the_help_as_it_is() -> None:
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    run = subprocess.run([sys.executable, "-m", "openmav", "--help"], capture_output=True, text=True, env=environment, timeout=60)
    block = (ROOT / "README.md").read_text(encoding="utf-8").partition("```text\n")[2].partition("\n```")[0]
    assert block == run.stdout.rstrip()


def test_every_picture_and_page_that_the_readme_names_is_there() -> None:
    import re

    named = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def lines_of(*patterns: str) -> dict[str, int]:
    """Of each file of the project that one of the patterns finds."""
    found = (path for pattern in patterns for path in ROOT.glob(pattern))
    return {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in found}


def test_files_of_more_than_300_lines_are_those_that_have_a_reason() -> None:
    reasons = set(re.findall(r"^  - `(src/[^`]+)`: .", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert {name for name, lines in lines_of("src/**/*.py").items() if lines > 300} == reasons


def test_no_file_has_more_than_400_lines() -> None:
    sizes = lines_of("src/**/*.py", "tests/**/*.py", "tools/**/*.py", "benchmarks/**/*.py")
    assert {name.partition("/")[0] for name in sizes} == {"src", "tests", "tools", "benchmarks"}
    assert {name: lines for name, lines in sizes.items() if lines > 400} == {}
