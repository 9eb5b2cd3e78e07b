"""Which long tests are called for: tools/changed.py in repositories made for it, and its table in CONTRIBUTING.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))
import changed  # noqa: E402

PANEL = "src/openmav/panels/x.py"


def git(folder: Path, *args: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True)


def write(folder: Path, name: str, text: str = "") -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository on whose files all long tests have passed."""
    git(tmp_path, "init")
    for name in ("README.md", PANEL, "Makefile"):
        write(tmp_path, name, "a text\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-m", "all")
    write(tmp_path, changed.PASSED, json.dumps(changed.sums(tmp_path)))
    return tmp_path


def called_for(folder: Path) -> set[str]:
    return {marker for marker, runs in changed.called_for(folder).items() if runs}


def test_on_the_files_that_they_passed_on_none_runs(project: Path) -> None:
    assert called_for(project) == set()
    write(project, "README.md", "changed")
    write(project, "src/openmav/panels_of_old.py")
    write(project, PANEL, "a text\r\n")  # as git writes it on Windows
    assert called_for(project) == set()


@pytest.mark.parametrize("committed", [False, True])
def test_a_changed_file_calls_for_what_watches_it(project: Path, committed: bool) -> None:
    write(project, PANEL, "changed")
    if committed:
        git(project, "commit", "-am", "a panel")
    assert called_for(project) == {"storm"}


def test_a_new_a_removed_and_a_renamed_file_count(project: Path) -> None:
    write(project, "src/openmav/panels/new.py")
    assert called_for(project) == {"storm"}
    (project / "src/openmav/panels/new.py").unlink()
    assert called_for(project) == set()
    git(project, "mv", PANEL, "src/openmav/panels/y.py")
    assert called_for(project) == {"storm"}
    git(project, "mv", "src/openmav/panels/y.py", "elsewhere.py")
    assert called_for(project) == {"storm"}


def test_a_change_of_the_build_calls_for_all(project: Path) -> None:
    write(project, "Makefile", "changed")
    assert called_for(project) == changed.WATCHES.keys()


@pytest.mark.parametrize("noted", ["", "no json", "{}"])
def test_where_it_cannot_be_told_all_run(project: Path, noted: str) -> None:
    write(project, changed.PASSED, noted)
    assert called_for(project) == changed.WATCHES.keys()


def test_without_git_all_run(tmp_path: Path) -> None:
    assert called_for(tmp_path) == changed.WATCHES.keys()


def test_each_watches_paths_that_are_there_and_marks_tests() -> None:
    assert [path for paths in (changed.ALWAYS, *changed.WATCHES.values()) for path in paths if not (ROOT / path).exists()] == []
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert changed.WATCHES.keys() <= set(re.findall(r"pytest\.mark\.(\w+)", tests))


def test_the_documentation_lists_them() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (`.*`) \|$", text, re.MULTILINE))
    assert {name: set(re.findall("`([^`]+)`", paths)) for name, paths in rows.items()} == {
        name: set(paths) for name, paths in changed.WATCHES.items()
    }
