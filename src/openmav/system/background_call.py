"""A call of somebody else's code in a thread of its own, so that it can be waited for as long as one likes and then be given up."""

from __future__ import annotations

import contextvars
import ctypes
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """Runs `do` at once. When `done` is set, `result` is what it returned, or `error` is what it raised, whatever that is."""

    def __init__(self, do: Callable[[], T], name: str) -> None:
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.began = time.monotonic()
        self.seconds = 0.0  # that it took
        self._do = do
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._run), daemon=True, name=name)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._do()
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are the called code's own
            self.error = error
        self.seconds = time.monotonic() - self.began
        self.done.set()

    def give_up(self) -> None:
        """Raises SystemExit in the thread if it runs Python code; one that is stuck elsewhere ends with the process."""
        if self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident), ctypes.py_object(SystemExit))
