"""Layouts: named sets of panels, switched while the model runs, and saved to the config file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.controllers.panels import PanelsController
from openmav.apps.tui.kinds import kinds_of
from openmav.apps.tui.screens.modal import Field
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.view.layouts import LEADS


class LayoutsController:
    """Shows and saves layouts."""

    def __init__(self, context: Context, panels: PanelsController) -> None:
        self._context, self._panels = context, panels
        self._saved_as = ""  # the name under which the layout was saved last

    def show(self, name: str) -> None:
        """The panels of a layout in their sizes, and the user's own panels beside them."""
        view = self._context.view
        if view.layout == name and not view.rearranged:
            self._context.notify(f"the layout {name} is shown already")
            return
        options = view.options
        panels = (*options.layouts[name], *options.own_panels)
        kinds = kinds_of({panel: registry.load("panels", panel) for panel in panels}, options.sizes.get(name, {}))
        self._context.note = ""
        alone = len(self._panels.places) == 1 < len(self._panels.modules) and not self._panels.maximised
        self._panels.show(panels, kinds, name, rearranged=False)
        self.lead(alone)

    def lead(self, alone: bool) -> None:
        """Where there is room for one panel alone, it is the one that the shown layout is for."""
        panels = self._panels.modules
        if alone and (lead := LEADS.get(self._context.view.layout, next(iter(panels)))) in panels:
            self._panels.focus(lead)

    def show_number(self, number: int) -> None:
        """The layout of that number, from 1."""
        names = list(self._context.view.options.layouts)
        if number <= len(names):
            self.show(names[number - 1])
        else:
            self._context.notify(f"there is no layout {number}: they go from 1 to {len(names)}")

    def ask_name(self) -> None:
        """The form that saves the panels under a name."""

        def check(values: Mapping[str, str]) -> str:
            name = values["name"].strip()
            return "" if name.isprintable() and name else "a layout needs a name"

        about = "Writes the panels, their order and their sizes to the config file."
        field = Field("name", "name", self._saved_as)
        self._context.ask("Save this layout", [field], check, lambda values: self.save(values["name"].strip()), about)

    def save(self, name: str) -> None:
        """Saves the panels, their order and their sizes as a layout of that name, in the app and in the config file."""
        context, options = self._context, self._context.view.options
        panels = tuple(panel for panel in self._panels.modules if panel not in options.own_panels)
        sizes = {panel: size for panel in panels if (size := self._panels.size_of(panel)) != (1.0, 1.0)}
        if options.save_layout is None:
            context.notify("layouts can only be saved when the app was started by the command mav")
            return
        try:
            path = options.save_layout(name, panels, sizes)
        except UsageError as error:
            context.notify(str(error))
            return
        layouts, own = {**options.layouts, name: panels}, {**options.sizes, name: sizes}
        changed = replace(options, layouts=layouts, sizes=own)
        self._saved_as, context.view = name, replace(context.view, options=changed, layout=name, rearranged=False)
        context.notify(f"saved as layout '{name}' in {path}")
