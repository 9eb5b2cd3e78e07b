"""The selection: which token, candidate, layer and head are shown."""

from __future__ import annotations

from dataclasses import replace

from openmav.apps.tui.controllers.context import LOADING, NO_TOKEN, Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.protocol.commands import Pause
from openmav.view import View


class NavigationController:
    """Moves the selection; sends nothing to the source, but to stop a sweep."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self._panels = context, panels

    def token(self, by: int) -> None:
        context = self._context
        at = context.view.cursor
        self._show_token(at + by, "this is the first token" if by < 0 else "this is the newest token")

    def first_token(self) -> None:
        self._show_token(0, "this is the first token")

    def newest_token(self) -> None:
        self._show_token(len(self._context.view.steps) - 1, "this is the newest token")

    def _show_token(self, index: int, otherwise: str) -> None:
        context = self._context
        context.show(context.view.at_step(index), otherwise if context.view.steps else NO_TOKEN)

    def candidate(self, by: int) -> None:
        context, last = self._context, "first" if by < 0 else "last"
        otherwise = f"this is the {last} of the candidates that are kept" if context.view.steps else NO_TOKEN
        context.show(context.view.candidate_beside(by), otherwise)

    def layer(self, by: int) -> None:
        context, view = self._context, self._context.view
        otherwise = f"layer {view.layer} is the {'highest' if by > 0 else 'lowest'} one" if view.layers else LOADING
        context.show(view.at_layer(view.layer + by, self._panels.layer_rows()), otherwise)
        self._say_without_token(view, f"layer {context.view.layer}")

    def head(self, by: int) -> None:
        context, view = self._context, self._context.view
        otherwise = f"head {view.head} is the {'last' if by > 0 else 'first'} one" if view.heads else LOADING
        if view.info is not None and not view.heads:
            otherwise = "this model has no attention heads"
        context.show(view.at_head(view.head + by), otherwise)
        self._say_without_token(view, f"head {context.view.head}")

    def _say_without_token(self, before: View, selected: str) -> None:
        """What has been selected, where no panel has a token to show it for."""
        if not before.steps and self._context.view != before:
            self._context.notify(f"{selected} selected; {NO_TOKEN}")

    def scroll(self, pages: int) -> None:
        context, rows = self._context, self._panels.layer_rows()
        otherwise = f"there are no more layers {'below' if pages > 0 else 'above'}" if rows else "no panel shows layers here"
        context.show(context.view.scrolled(pages * max(1, rows - 1), rows), otherwise)

    def wheel(self, panel: str, by: int) -> None:
        """Scrolls the layers of all panels together, moves through the tokens of text and timeline, and through candidates."""
        kind = self._panels.kinds.get(panel)
        if kind is None:  # its panel has been removed meanwhile
            return
        if kind.group == "layers":
            self._context.show(self._context.view.scrolled(2 * by, self._panels.layer_rows()))
        elif panel in ("top_predictions", "token_card"):
            self.candidate(by)
        elif panel in ("timeline", "generated_text"):
            self.token(by)

    def escape(self) -> None:
        """Stops a sweep; else clears the selected candidate and the search, and closes the notice; where no candidate is selected,
        shows all panels again."""
        sweep = self._context.view.sweep
        if sweep is not None and sweep.under_way and self._context.send(Pause()):
            self._context.poll()
            return
        context, maximised = self._context, self._panels.maximised
        self._panels.maximised = maximised and context.view.candidate is not None
        closed, before = context.close_notice(), context.view
        context.view = replace(before, candidate=None, search="").at_step(before.cursor)
        if not closed and context.view == before and self._panels.maximised == maximised:
            context.note = "nothing is selected"
        context.redraw()
