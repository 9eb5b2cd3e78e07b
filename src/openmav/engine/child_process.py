"""The engine's process: what it does with signals, output, and an app that is gone; its work is in `worker`."""

from __future__ import annotations

import signal
import threading
import traceback
from multiprocessing.connection import Connection

from openmav.engine.app_watch import AppState, leave_with_app
from openmav.engine.events import Failed
from openmav.engine.inbox import AppGoneError
from openmav.engine.worker import Engine
from openmav.errors import MavError, words_of
from openmav.settings import Settings
from openmav.system import last_words, signals
from openmav.system.imports import failed_import
from openmav.system.logs import take_descriptors
from openmav.system.memory import out_of_memory
from openmav.system.terminal_state import TerminalState


def serve(
    pipe: Connection, settings: Settings, log: str | None, terminal: TerminalState | None = None, app: AppState | None = None
) -> None:
    """The engine process: Ctrl-C is the app's business, output of libraries goes to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGTTOU"):  # so that it can put the terminal back, which is a shell's by then
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signals.release()
    take_descriptors(log)
    watch = threading.Thread(target=leave_with_app, args=(terminal, app), daemon=True, name="mav app watch")
    watch.start()
    if app is not None:
        last_words.tell(app.leave)
    engine = Engine(pipe, settings, app.name_measure if app is not None else None)
    try:
        try:
            engine.serve()
        except MavError as error:
            engine.reporter.send(Failed(str(error), error.exit_code))
        except AppGoneError:
            raise
        except BaseException as error:
            engine.reporter.send(_failure(error))
    except AppGoneError:
        watch.join(1)  # it puts the terminal back and ends this process; an exit here would cut it short


def _failure(error: BaseException) -> Failed:
    details = "".join(traceback.format_exception(error))
    if out_of_memory(error):
        return Failed("out of memory; try --dtype bfloat16, a shorter prompt, or a smaller model", 2, details)
    if line := failed_import(error):
        return Failed(line, 2, details)
    return Failed(f"the model's process failed: {words_of(error, kind=True)}", 1, details)
