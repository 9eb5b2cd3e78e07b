"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_file(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a temporary file in the same folder and rename it once it is on the disk. A link is followed; the file's mode is kept.

    So a full disk or a crash leaves the old file. What is not a regular file, for example a pipe, is written to directly.
    `new`: fail where the file exists. Raises OSError, including FileExistsError.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not new:
        target.write_bytes(data)
        return
    with new_file(path, new=new) as file:
        file.write(data)


@contextmanager
def new_file(path: Path, *, new: bool = False) -> Iterator[BinaryIO]:
    """A file to write into that takes its place at the end of the block, as `write_file` says; an error in the block leaves the old one."""
    target = Path(os.path.realpath(path))
    if new and target.exists():
        raise FileExistsError(f"{target} exists")
    temporary = target.with_name(f".mav-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if new:
            _move_new(temporary, target)
        else:
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _move_new(temporary: Path, target: Path) -> None:
    """Raises FileExistsError where the target exists."""
    if os.name != "nt":  # POSIX, where a rename overwrites the target
        try:
            os.link(temporary, target)
            return
        except FileExistsError:
            raise
        except OSError as error:  # a file system without hard links
            if target.exists():
                raise FileExistsError(f"{target} exists") from error
    os.rename(temporary, target)


def _sync_folder(folder: Path) -> None:
    """Flush the rename to the disk; Windows and some file systems do not support that."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
