"""Panels that are not mav's run in threads of their own, so that one that is slow, hangs or raises anything never blocks the app."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn, TypeVar

from openmav.system.background_call import BackgroundCall

T = TypeVar("T")
SHARE = 0.1  # seconds that the app waits for a call; a slower one is shown when it returns
HANGS = 2.0  # seconds after which a call is abandoned
RESTS = 9  # after a slow call, times its duration until the next one


class HangingError(Exception):
    """A call that did not return."""

    def __init__(self) -> None:
        super().__init__(f"no answer after {HANGS:.0f} s; no longer drawn")


class _Naming:
    """Which panel is being called, so that a crash of the process can name it."""

    name_panel: Callable[[str], None] | None = None
    panel = ""  # the last one


@contextmanager
def naming(name_panel: Callable[[str], None] | None) -> Iterator[None]:
    """Inside the block `name_panel` is called with a panel's title before each call of its code, and with "" after it."""
    _Naming.name_panel = name_panel
    try:
        yield
    finally:
        _Naming.name_panel = None


@contextmanager
def leaving_in_order(leave: Callable[[str], object]) -> Iterator[None]:
    """Inside the block os._exit calls `leave` with the panel's title first: else the shell would keep the terminal as the app set it."""
    before, ours = os._exit, os.getpid()

    def ends(status: int) -> NoReturn:
        if os.getpid() == ours:
            leave(_Naming.panel)
        before(status)

    os._exit = ends
    try:
        yield
    finally:
        os._exit = before


def _call(panel: str, do: Callable[[], T]) -> BackgroundCall[T]:
    """Calls a panel's code in a thread of its own, and says meanwhile whose code it is."""

    def named() -> T:
        name_panel = _Naming.name_panel
        _Naming.panel = panel
        if name_panel is not None:
            name_panel(panel)
        try:
            return do()
        finally:
            if name_panel is not None:
                name_panel("")

    return BackgroundCall(named, "mav own panel")


class OwnRunner:
    """Calls the code of one panel: one call at a time, less often if it is slow, never again once it hung."""

    def __init__(self, name: str) -> None:
        self.panel = name
        self._call: BackgroundCall[object] | None = None
        self._rests_until = 0.0
        self.seconds = 0.0  # that the last call took if it was slow, else 0
        self.given_up = False

    @property
    def under_way(self) -> bool:
        """Whether it has more to show though nothing else has changed."""
        return not self.given_up and (self._call is not None or self.seconds > 0)

    def newest(self, do: Callable[[], T], last: T | None) -> T | None:
        """The result of a call if it is quick, else `last`, the result before.

        Raises HangingError if it hung, and whatever the call raised.
        """
        if self.given_up:
            raise HangingError
        if self._call is None and time.monotonic() >= self._rests_until:
            self._call = _call(self.panel, do)
            self._call.done.wait(SHARE if not self.seconds else 0)
        return self._taken(last)

    def _taken(self, last: T | None) -> T | None:
        call = self._call
        if call is None:
            return last
        if not call.done.is_set():
            self._drop_if_hanging(call)
            return last
        self._call, slow = None, call.seconds > SHARE
        self.seconds = call.seconds if slow else 0.0
        self._rests_until = time.monotonic() + RESTS * call.seconds if slow else 0.0
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]

    def once(self, do: Callable[[], T]) -> T:
        """The result, waiting until it is there or hangs. Raises as `newest` does."""
        if self.given_up:
            raise HangingError
        call = _call(self.panel, do)
        if not call.done.wait(HANGS):
            self._give_up(call)
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]

    def _drop_if_hanging(self, call: BackgroundCall[object]) -> None:
        if time.monotonic() - call.began > HANGS:
            self._give_up(call)

    def _give_up(self, call: BackgroundCall[T]) -> None:
        self.given_up, self._call = True, None
        call.give_up()
        raise HangingError


_runners: weakref.WeakKeyDictionary[ModuleType, OwnRunner] = weakref.WeakKeyDictionary()


def runner_of(module: ModuleType) -> OwnRunner:
    """The runner of a panel; it lives as long as the panel's module."""
    return _runners.setdefault(module, OwnRunner(str(getattr(module, "TITLE", module.__name__))))
