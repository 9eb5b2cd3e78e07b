"""One web page that holds a recording: no network, no library, and nothing of the recording is markup or code."""

from __future__ import annotations

from typing import BinaryIO

from openmav.recording.export.page.assemble import page_text
from openmav.recording.export.page.content import encoded_content
from openmav.recording.export.run import Run, need_few_numbers
from openmav.recording.reader import Recording
from openmav.recording.replay import snapshot_of
from openmav.recording.sweep import RecordedSweep

MOST_NUMBERS = 2**24  # of the arrays of a step; most of so many have no room in the page, which says so


def write(run: Run, out: BinaryIO) -> None:
    """The page, as UTF-8. Raises UsageError."""
    for _, step in run.own_steps():
        need_few_numbers(step, MOST_NUMBERS, "a page")
    out.write(page_text(encoded_content(run.recording, run.now)).encode())


def write_sweep(sweep: RecordedSweep, recording: Recording, out: BinaryIO) -> None:
    """The page of a sweep: its map, and the prompt."""
    out.write(page_text(encoded_content(recording, snapshot_of(recording), sweep), of_sweep=True).encode())
