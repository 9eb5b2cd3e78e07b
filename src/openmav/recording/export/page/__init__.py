"""One web page that holds a recording: no network, no library, and nothing of the recording is markup or code."""

from __future__ import annotations

from typing import BinaryIO

from openmav.errors import UsageError
from openmav.recording.export.page.assemble import page_text
from openmav.recording.export.page.content import encoded_content
from openmav.recording.export.run import Run
from openmav.recording.reader import Recording
from openmav.recording.replay import snapshot_of
from openmav.recording.sweep import RecordedSweep

LARGE = 4_000_000  # bytes of the arrays of a step
MOST_LARGE = 2**27  # bytes of all such steps: twice what a recording keeps of whole attention rows


def write(run: Run, out: BinaryIO) -> None:
    """The page, as UTF-8. Raises UsageError."""
    if (size := run.recording.bytes_of_large_steps(LARGE)) > MOST_LARGE:
        raise UsageError(f"the largest tokens have {size / 2**20:.0f} MB of numbers, too many for a page; mav export --to parquet has them")
    out.write(page_text(encoded_content(run.recording, run.now)).encode())


def write_sweep(sweep: RecordedSweep, recording: Recording, out: BinaryIO) -> None:
    """The page of a sweep: its map, and the prompt."""
    out.write(page_text(encoded_content(recording, snapshot_of(recording), sweep), of_sweep=True).encode())
