"""Pinning a token or the run: the panels show how what is looked at differs from it."""

from __future__ import annotations

from dataclasses import replace

from openmav.apps.tui.controllers.context import Context
from openmav.paint import fit, one_line, visible
from openmav.view.pinned import Pinned

NAME = 12  # cells of the pinned token's text, or of the branch's name


class BaselineController:
    """Pins and unpins; sends nothing to the source."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def pin_token(self) -> None:
        """The shown token; pressed on the pinned one, or on nothing else to pin, unpins it."""
        context, view = self._context, self._context.view
        if not context.has_token() or view.step is None:
            return
        if view.pinned is not None and view.pinned.at == view.cursor and view.reference is not None:
            self._pin(None)
            return
        name = f"token {view.cursor} {fit(visible(view.step.token), NAME).rstrip()}"
        self._pin(Pinned.token(name, view.prompt, view.steps, view.cursor))

    def pin_run(self) -> None:
        """The run as it is now; pressed again, unpins it."""
        context, view = self._context, self._context.view
        if not context.has_token():
            return
        if view.pinned is not None and view.pinned.at is None:
            self._pin(None)
            return
        count = len(view.steps)
        name = f"run {fit(one_line(view.branch), NAME).rstrip()} ({count} token{'s' * (count != 1)})"
        self._pin(Pinned.run(name, view.prompt, view.steps))

    def _pin(self, pinned: Pinned | None) -> None:
        context = self._context
        context.view = replace(context.view, pinned=pinned)
        if pinned is None:
            context.notify("nothing is pinned: the panels show the numbers themselves")
        else:
            key = context.key("pin" if pinned.at is not None else "pin_run")
            context.notify(f"{pinned.name} is pinned: differences from it are shown; {key} unpins")
