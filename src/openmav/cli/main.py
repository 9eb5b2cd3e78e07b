"""The command `mav`: runs a subcommand and turns whatever happens into an exit code and at most one line on stderr.

Exit codes: 0 done, 1 the model's process or mav itself failed, 2 something requested makes no sense or cannot be
loaded, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence

from openmav.errors import MavError, words_of
from openmav.system.imports import failed_import
from openmav.system.logs import record_failure, say, stdout
from openmav.system.signals import Interrupted, pending, watch_signals

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE, errno.EBADF)  # what click's own output fails with


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
        if (number := pending()) is not None:
            return 128 + number  # raised inside a library that was being imported, say, which made an error of it
        where = record_failure(error)
        if line := failed_import(error):
            return _fail(f"{line} The details are in {where}", MavError.exit_code)
        return _fail(f"internal error: {words_of(error, kind=True)}; the details are in {where}", 1)


def _run(args: Sequence[str] | None) -> int:
    import click

    from openmav.cli.output import Output, ReaderGoneError
    from openmav.cli.parser import command

    try:
        code = int(command.main(args, prog_name="mav", standalone_mode=False) or 0)
        out = stdout()
        if code == 0 and out is not None and not out.closed:
            Output(out).flush()  # a full disk shows here, whoever wrote
        return code
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except ReaderGoneError:
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        with contextlib.suppress(MavError, ReaderGoneError):
            Output(stdout()).flush()  # which lets what is left go nowhere, so that the interpreter's last flush does not fail
        return 0 if error.errno == errno.EPIPE else _fail(f"cannot write to stdout: {error.strerror}", MavError.exit_code)


def _fail(reason: str, exit_code: int) -> int:
    say("mav: " + " ".join(reason.split()))
    return exit_code
