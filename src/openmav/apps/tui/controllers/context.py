"""What the controllers share: the view, the source, messages to the user and dialogs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from textual.screen import Screen

from openmav.apps.tui import status_lines
from openmav.apps.tui.keys import key_of
from openmav.apps.tui.screens.modal import Field
from openmav.errors import UsageError
from openmav.paint import PALETTES
from openmav.protocol.commands import Command
from openmav.protocol.source import Source
from openmav.view import View

T = TypeVar("T")
LOADING = "the model is still loading"
NO_TOKEN = "there is no token yet"
LASTS, READING = 5.0, 15  # seconds that a message stays at least, and characters that are read in one


class Host(Protocol):
    """The app, as far as the controllers need it."""

    def redraw(self) -> None: ...

    def tick(self) -> None: ...

    def exit(self) -> None: ...

    def push_screen(self, screen: Screen[Any], callback: Callable[[Any], None]) -> object: ...


class Context:
    """One for each app. A controller makes a new view or sends a command; the app draws."""

    def __init__(self, source: Source, view: View, host: Host) -> None:
        self.source, self.view, self._host = source, view, host
        self._note, self._noted = "", 0.0  # the app's own last message; the source's notice where empty
        self._notice, self._notices, self._noticed = "", 0, 0.0  # the source's, how many came before, and when it came
        self._read_notes: tuple[str, ...] = ()  # notes on the model that the user has closed

    # ---- the screen ----

    def redraw(self) -> None:
        self._host.redraw()

    def poll(self) -> None:
        """Takes the newest state of the source."""
        self._host.tick()

    def show(self, view: View, otherwise: str = "") -> None:
        """Another view of the same state; a message where it is the same view."""
        if view != self.view:
            self.view = view
            self.redraw()
        elif otherwise:
            self.notify(otherwise)

    def follow(self) -> None:
        """The cursor on the newest token, going along with it. Drawn with the next frame."""
        self.view = self.newest

    @property
    def newest(self) -> View:
        return self.view.at_step(len(self.view.steps) - 1)

    # ---- messages to the user ----

    @property
    def note(self) -> str:
        """The app's own last message, as long as it stays."""
        return self._note if _stays(self._note, self._noted) else ""

    @note.setter
    def note(self, text: str) -> None:
        self._note, self._noted = text, time.monotonic()

    def notify(self, text: str) -> None:
        """A line above the keys, which goes away by itself."""
        self.note = text
        self.redraw()

    @property
    def notice(self) -> str:
        """The line above the keys: the last message of the app or of the source, else unread notes on the model."""
        if (self.view.notice, self.view.notices) != (self._notice, self._notices):
            self._notice, self._notices, self._noticed = self.view.notice, self.view.notices, time.monotonic()
        info, said = self.view.info, self._notice if _stays(self._notice, self._noticed) else ""
        return self.note or said or ("" if info is None or info.notes == self._read_notes else status_lines.notes(self.view))

    def close_notice(self) -> bool:
        """Whether there was one."""
        had = bool(self.notice)
        self.note, self._noticed, self._read_notes = "", -1e9, self.view.info.notes if self.view.info else ()
        return had

    def key(self, id: str) -> str:
        """The first key of a binding, to be named in a message."""
        return key_of(id, self.view.options.keys)

    # ---- the source ----

    def takes(self, command: type[Command]) -> bool:
        """Whether the source takes commands of this kind."""
        return command.__name__ in self.source.can

    def send(self, command: Command) -> bool:
        """Sends a command if the source takes it."""
        if not self.takes(type(command)):
            return False
        self.source.send(command)
        return True

    def ready(self, command: type[Command], feature: str) -> bool:
        """Whether the source takes the command and its model is loaded; notifies the user if not."""
        if not self.takes(command):
            self.notify(f"this source does not support {feature}")
            return False
        if self.view.info is None:
            self.notify(LOADING)
            return False
        return True

    def has_token(self) -> bool:
        """Whether there is a token to look at; notifies the user if not."""
        if not self.view.steps:
            self.notify(f"{NO_TOKEN}; {self.key('next')} generates one")
        return bool(self.view.steps)

    # ---- screens over the app ----

    def open(self, screen: Screen[T], then: Callable[[T | None], None]) -> None:
        """Opens a screen; `then` gets what it was closed with."""
        self._host.push_screen(screen, then)

    def ask(
        self,
        title: str,
        fields: Sequence[Field],
        check: Callable[[Mapping[str, str]], str],
        take: Callable[[dict[str, str]], object],
        about: str = "",
    ) -> None:
        """Opens a form. `check` gives what is wrong with the values, "" for nothing; `take` gets the values once they are accepted."""
        from openmav.apps.tui.screens.forms import FormScreen

        def done(values: dict[str, str] | None) -> None:
            if values is not None:
                take(values)

        self.open(FormScreen(title, fields, check, PALETTES[self.view.theme], about), done)

    def quit(self) -> None:
        self._host.exit()


def _stays(text: str, since: float) -> bool:
    return time.monotonic() - since < max(LASTS, len(text) / READING)


def error_of(check: Callable[[], object]) -> str:
    """What is wrong with a value, "" for nothing."""
    try:
        check()
    except UsageError as error:
        return str(error)
    return ""
