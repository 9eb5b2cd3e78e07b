"""Which long tests a change calls for: tools/changed.py in repositories made for it, and its table in CONTRIBUTING.md."""

from __future__ import annotations

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
def clone(tmp_path: Path) -> Path:
    """A clone of a repository with two commits."""
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init")
    for name in ("README.md", "docs/a.md"):
        write(origin, name)
        git(origin, "add", "-A")
        git(origin, "commit", "-m", name)
    git(tmp_path, "clone", str(origin), "clone")
    return tmp_path / "clone"


def test_what_is_committed_and_what_is_not_both_count(clone: Path) -> None:
    write(clone, PANEL)
    git(clone, "add", "-A")
    git(clone, "commit", "-m", "a panel")
    write(clone, "docs/a.md", "changed")
    write(clone, "new.py")
    assert changed.changed(clone) == ["docs/a.md", "new.py", PANEL]
    assert changed.changed(clone, "HEAD") == ["docs/a.md", "new.py"]


def test_a_renamed_file_counts_where_it_was(clone: Path) -> None:
    write(clone, PANEL, "a long text\n" * 20)
    git(clone, "add", "-A")
    git(clone, "commit", "-m", "a panel")
    git(clone, "mv", PANEL, "elsewhere.py")
    assert changed.changed(clone, "HEAD") == ["elsewhere.py", PANEL]


def test_where_it_cannot_be_told_everything_runs(clone: Path, tmp_path: Path) -> None:
    assert changed.changed(clone) is None, "main itself"
    assert changed.changed(tmp_path) is None, "no repository"
    assert changed.changed(clone, "no-such-commit") is None
    git(tmp_path, "clone", "--depth", "1", (tmp_path / "origin").as_uri(), "shallow")
    write(tmp_path / "shallow", "new.py")
    git(tmp_path / "shallow", "add", "-A")
    git(tmp_path / "shallow", "commit", "-m", "new")
    assert changed.changed(tmp_path / "shallow") is None
    git(clone, "remote", "remove", "origin")
    assert changed.changed(clone) is None, "no origin"
    assert all(changed.called_for(None).values())


def test_a_path_calls_for_what_watches_it() -> None:
    called = changed.called_for(["README.md", PANEL, "src/openmav/conditions_of_use.py"])
    assert {name for name, path in called.items() if path} == {"storm"}
    assert called["storm"] == PANEL
    assert all(changed.called_for(["Makefile"]).values())
    assert not any(changed.called_for([]).values())


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
