"""`mav export` and `mav import`: a recording in other formats, and one made of JSON lines."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from openmav.cli.output import Output, echo
from openmav.errors import UsageError
from openmav.recording.export import FORMATS
from openmav.recording.export.run import export, write_format
from openmav.recording.from_jsonl import import_lines
from openmav.recording.reader import Recording
from openmav.system.logs import stdout
from openmav.system.terminal import is_terminal


def export_command(file: str, name: str, output: str | None, force: bool) -> int:
    """Write the file, and say so. Raises UsageError for what is no recording, and where the file exists or can't be written."""
    if output == "-":
        return _to_stdout(file, name)
    if output is None and not Path(file).name:  # "." and "/" are folders
        raise UsageError(f"'{file}' is no recording; give a file")
    target = Path(output) if output is not None else Path(file).with_suffix(FORMATS[name].suffix)
    export(file, name, target, force)
    echo(f"wrote {target}")
    return 0


def import_command(file: str, output: str) -> int:
    """Write the recording, and say how many tokens it has. Raises UsageError for other lines, and where the recording exists."""
    tokens = import_lines(Path(file), Path(output))
    echo(f"wrote {output} with {tokens} tokens")
    return 0


def _to_stdout(file: str, name: str) -> int:
    if not FORMATS[name].text or is_terminal(sys.stdout):
        why = "a terminal shows it as it is" if FORMATS[name].text else f"{name} is no text"
        raise UsageError(f"cannot write to stdout: {why}; give a file with -o")
    data = io.BytesIO()
    with Recording(file) as recording:
        write_format(recording, name, data)
    Output(stdout()).write(data.getvalue().decode())
    return 0
