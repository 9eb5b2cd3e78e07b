"""The command `mav`: runs what was asked for and turns whatever happens into an exit code and at most one line on stderr.

Exit codes: 0 done, 1 the model's process or mav itself failed, 2 something asked for does not make sense or cannot be
loaded, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

from collections.abc import Sequence

from openmav.errors import MavError
from openmav.logs import record_failure, say
from openmav.signals import Interrupted, watch_signals


def main(args: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (None: those of the process) and return its exit code."""
    try:
        with watch_signals():
            return _run(args)
    except Interrupted as interrupt:
        return interrupt.exit_code
    except MavError as error:
        return _fail(str(error), error.exit_code)
    except Exception as error:
        where = record_failure(error)
        return _fail(f"internal error: {type(error).__name__}: {error}; the details are in {where}", 1)


def _run(args: Sequence[str] | None) -> int:
    import click

    from openmav.commands.parser import command

    try:
        return int(command.main(args, prog_name="mav", standalone_mode=False) or 0)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)


def _fail(reason: str, exit_code: int) -> int:
    say("mav: " + " ".join(reason.split()))
    return exit_code
