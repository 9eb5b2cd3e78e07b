"""Files are written whole or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from openmav.cli.config_file import read, write
from openmav.cli.new import write_new
from openmav.errors import UsageError
from openmav.system.files import write_file


def fails(number: int):
    def fail(*_arguments: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_is_written_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    write_file(path, b"one")
    path.chmod(0o640)
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["a.toml"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"years of settings")
    monkeypatch.setattr(os, call, fails(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"x" * 100_000)
    assert path.read_bytes() == b"years of settings"
    assert os.listdir(tmp_path) == ["a.toml"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_bytes(b"one")
    link.symlink_to(real)
    write_file(link, b"two")
    assert link.is_symlink()
    assert real.read_bytes() == b"two"


def test_what_is_there_is_not_overwritten_where_it_must_be_new(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    write_file(path, b"one", new=True)
    with pytest.raises(FileExistsError):
        write_file(path, b"two", new=True)
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["mine.py"]


def test_layouts_and_own_panels_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text('theme = "light"\n')
    monkeypatch.setattr(write, "config_path", lambda: path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", fails(errno.ENOSPC))
    with pytest.raises(UsageError, match=r"cannot write the config file .*No space"):
        write.save_layout("mine", ["timeline"], {})
    with pytest.raises(UsageError, match=r"cannot write mine\.py: No space"):
        write_new("panel", "mine")
    assert path.read_text() == 'theme = "light"\n'
    assert os.listdir(tmp_path) == ["config.toml"]
    monkeypatch.undo()
    assert read.config_path() != path
