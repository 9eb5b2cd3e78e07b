"""Reading: searching the generated text, and walking from one hit, or from one surprising token, to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from openmav.apps.tui.controllers.context import Context
from openmav.paint import PALETTES, fit, number_text, printable, visible
from openmav.panels.widgets.search import SURPRISING, is_in, matches, neighbour, surprising

SHOWN = 20  # cells of the searched text in a message


class ReadingController:
    """Moves the cursor to tokens worth looking at; sends nothing to the source."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def search(self) -> None:
        """Opens the line in which the user types what to search for."""
        from openmav.apps.tui.screens.search import SearchScreen

        context = self._context
        if context.has_token():
            context.open(SearchScreen(context.view.search, self._count, PALETTES[context.view.theme]), self._found)

    def go(self, by: int) -> None:
        """The next hit of the search (`by` 1) or the one before (-1); where nothing is searched for, the next surprising token."""
        if not self._context.has_token():
            return
        if self._context.view.search:
            self._to_hit(by)
        else:
            self._to_surprise(by)

    def _count(self, text: str) -> str:
        """How often a text that is being typed is found."""
        if not text:
            return "no text: ends the search" if self._context.view.search else ""
        hits = len(matches(self._context.view.steps, text))
        return f"{hits} hit{'s' * (hits != 1)}"

    def _found(self, text: str | None) -> None:
        """What the search line was closed with; None: nothing changes."""
        context = self._context
        if text is None:
            return
        context.view = replace(context.view, search=text)
        if text:
            self._to_hit(1)
        else:
            context.notify(f"no search: {context.key('hit_next')} goes to the next surprising token")

    def _to_hit(self, by: int) -> None:
        view = self._context.view
        hits = matches(view.steps, view.search)
        shown = f"'{fit(printable(view.search), SHOWN).rstrip()}'"
        if hits:
            self._go(hits, by, f"{shown}: hit")
            return
        prompt = view.prompt is not None and is_in(view.prompt.text, view.search)
        self._context.notify(f"{shown} is not in the generated text{', only in the prompt' if prompt else ''}")

    def _to_surprise(self, by: int) -> None:
        view = self._context.view
        indexes = surprising(view.steps)
        if indexes:
            self._go(indexes, by, "surprising token")
        else:
            self._context.notify(f"no token here has a surprisal of {SURPRISING:g} nats or more")

    def _go(self, indexes: Sequence[int], by: int, what: str) -> None:
        """The cursor on the next of the indexes, and in a line which one it is, and that it began anew where it did."""
        context = self._context
        before, place = context.view.cursor, neighbour(indexes, context.view.cursor, by)
        index = indexes[place]
        context.view = context.view.at_step(index)
        step = context.view.steps[index]
        parts = [f"{what} {place + 1} of {len(indexes)}", f"{visible(step.token)} {number_text(step.surprisal, 2)} nats"]
        if index == before:
            parts.append("the only one")
        elif (index > before) != (by > 0):
            parts.append("again from the beginning" if by > 0 else "again from the end")
        context.notify(" · ".join(parts))
