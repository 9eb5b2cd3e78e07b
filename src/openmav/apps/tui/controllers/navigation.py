"""The selection: which token, candidate, layer and head are shown."""

from __future__ import annotations

from dataclasses import replace

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController


class NavigationController:
    """Moves the selection; sends nothing to the source."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self._panels = context, panels

    def token(self, by: int) -> None:
        self._context.show(self._context.view.at_step(self._context.view.cursor + by))

    def first_token(self) -> None:
        self._context.show(self._context.view.at_step(0))

    def newest_token(self) -> None:
        self._context.show(self._context.newest)

    def candidate(self, by: int) -> None:
        self._context.show(self._context.view.candidate_beside(by))

    def layer(self, by: int) -> None:
        view = self._context.view
        self._context.show(view.at_layer(view.layer + by, self._panels.layer_rows()))

    def head(self, by: int) -> None:
        self._context.show(self._context.view.at_head(self._context.view.head + by))

    def scroll(self, pages: int) -> None:
        rows = self._panels.layer_rows()
        self._context.show(self._context.view.scrolled(pages * max(1, rows - 1), rows))

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
        """Clears the selected candidate and the search, and closes the notice; where no candidate is selected, shows all panels again."""
        context = self._context
        self._panels.maximised = self._panels.maximised and context.view.candidate is not None
        context.close_notice()
        context.view = replace(context.view, candidate=None, search="").at_step(context.view.cursor)
        context.redraw()
