"""`mav config path|show|edit`."""

from __future__ import annotations

from pathlib import Path

import click

from openmav.cli.config_file.read import config_path, read_config, read_text
from openmav.cli.output import echo
from openmav.errors import UsageError
from openmav.system.files import write_file

FIRST = """\
# mav's config file. Flags on the command line win over it. All that is possible: docs/config.md of mav.

# layout = "attention"          # which panels mav opens with
# theme = "light"               # dark, light, contrast
# panels = ["my_panel.py"]      # panel files of your own; a relative path starts at this file
# measures = ["my_measure.py"]  # measure files of your own

[layouts]
# reading = ["generated_text", "top_predictions", "timeline"]

[keys]
# run = "space,p"
# help = "h"
"""


def configure(what: str) -> int:
    """Print the path, print the content, or open it in the user's editor.

    Raises UsageError for the first mistake in the file, after it was shown.
    """
    path = config_path()
    if what == "path":
        echo(str(path))
        return 0
    if what == "edit":
        _edit(path)
    else:
        echo(_text(path))
    read_config(path)
    return 0


def _text(path: Path) -> str:
    text = read_text(path)
    if text is None:
        return f"# {path} is not there yet; `mav config edit` makes it. It begins as:\n\n{FIRST}".rstrip()
    return f"# {path}\n{text}".rstrip()


def _edit(path: Path) -> None:
    """Opens the file in the editor of VISUAL or EDITOR, or in the system's own; makes it first where it is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_file(path, FIRST.encode())
    except OSError as error:
        raise UsageError(f"cannot write the config file {path}: {error.strerror or error}") from error
    try:
        click.edit(filename=str(path))
    except click.ClickException as error:
        raise UsageError(f"{error.format_message()}; set EDITOR to your editor, or open {path} yourself") from error
