"""One web page that holds a recording: no network, no library, and nothing of the recording is markup or code."""

from __future__ import annotations

from pathlib import Path

from openmav.errors import UsageError
from openmav.recording.export.page.assemble import page_text
from openmav.recording.export.page.content import encoded_content
from openmav.recording.reader import Recording


def write_page(recording: Recording, path: str | Path) -> None:
    """Writes the page. Raises UsageError where the recording holds no run, or the file can't be written."""
    text = page_text(encoded_content(recording))
    try:
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
