"""What every format is made of, and the file that it is written into."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from openmav.errors import UsageError
from openmav.protocol.snapshot import Snapshot
from openmav.record import Branch, ModelInfo, Step
from openmav.recording.check import checks
from openmav.recording.export import FORMATS, SWEEP_FORMATS
from openmav.recording.reader import Recording
from openmav.recording.replay import snapshot_of
from openmav.recording.sweep import read_sweep
from openmav.system.files import new_file


@dataclass(frozen=True)
class Run:
    """What a format is made of: the open file, the run as the app shows it, and all branches, the first one first."""

    recording: Recording
    now: Snapshot
    branches: tuple[Branch, ...]

    @property
    def info(self) -> ModelInfo:
        assert self.now.info is not None
        return self.now.info

    def own_steps(self) -> Iterator[tuple[Branch, Step]]:
        """Every step once: those of each branch that are not its parent's."""
        parents = {branch.name: branch for branch in self.branches}
        for branch in self.branches:
            shared = parents[branch.parent].steps[: branch.at] if branch.parent is not None else ()
            for index, step in enumerate(branch.steps):
                if index >= len(shared) or step is not shared[index]:
                    yield branch, step


def run_of(recording: Recording) -> Run:
    """Raises UsageError for a recording that holds no run."""
    now = snapshot_of(recording)
    recording.check_arrays()
    assert now.prompt is not None
    current = Branch(now.branch, now.prompt, tuple(now.steps), now.parent, now.at)
    return Run(recording, now, tuple(recording.branches()) or (current,))


@np.errstate(all="ignore")  # a damaged file may have any bits for a number, signalling NaNs too
def write_format(recording: Recording, name: str, out: BinaryIO) -> None:
    """The recording in this format. Raises UsageError for what can't be written in it."""
    module = importlib.import_module(FORMATS[name].module)
    try:
        sweep = read_sweep(recording)
        if sweep is None:
            module.write(run_of(recording), out)
        elif name in SWEEP_FORMATS:
            module.write_sweep(sweep, recording, out)
        else:
            raise UsageError(f"{recording.path} is of a sweep, which {name} has no form for; known: {', '.join(SWEEP_FORMATS)}")
    except UsageError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        if not recording.problems and all(check.good for check in checks(recording)):
            raise
        raise UsageError(f"{recording.path} is damaged and cannot be written as {name}: {error}; mav verify says where") from error


def export(source: str | Path, name: str, target: str | Path, force: bool = False) -> None:
    """Writes the recording `source` as the file `target`, whole or not at all; `force`: in the place of an existing file.

    Raises UsageError for what is no recording, and where the file exists or can't be written.
    """
    with Recording(source) as recording:
        try:
            with new_file(Path(target), new=not force) as out:
                write_format(recording, name, out)
        except FileExistsError as error:
            raise UsageError(f"{target} exists already; take another name with -o, or write over it with --force") from error
        except OSError as error:
            raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
