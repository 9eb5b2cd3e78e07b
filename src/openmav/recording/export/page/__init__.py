"""One web page that holds a recording: no network, no library, and nothing of the recording is markup or code."""

from __future__ import annotations

from typing import BinaryIO

from openmav.recording.export.page.assemble import page_text
from openmav.recording.export.page.content import encoded_content
from openmav.recording.export.run import Run, numbers_of, too_many
from openmav.recording.reader import Recording
from openmav.recording.replay import snapshot_of
from openmav.recording.sweep import RecordedSweep

LARGE = 1_000_000  # numbers of a step
MOST_NUMBERS = 2**25  # of all such steps: twice what a recording keeps of whole attention rows


def write(run: Run, out: BinaryIO) -> None:
    """The page, as UTF-8. Raises UsageError."""
    large = 0
    for _, step in run.own_steps():
        count = numbers_of(step)
        large += count if count > LARGE else 0
        if large > MOST_NUMBERS:
            raise too_many(step, large, "a page")
    out.write(page_text(encoded_content(run.recording, run.now)).encode())


def write_sweep(sweep: RecordedSweep, recording: Recording, out: BinaryIO) -> None:
    """The page of a sweep: its map, and the prompt."""
    out.write(page_text(encoded_content(recording, snapshot_of(recording), sweep), of_sweep=True).encode())
