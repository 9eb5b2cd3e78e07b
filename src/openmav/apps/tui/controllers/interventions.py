"""Interventions on the model: the list of those that are active, and a form to add one."""

from __future__ import annotations

from collections.abc import Mapping

from openmav.apps.tui.controllers.changes import ChangesController
from openmav.apps.tui.controllers.context import Context, error_of
from openmav.apps.tui.screens.modal import Field
from openmav.errors import UsageError
from openmav.paint import PALETTES
from openmav.panels.interventions import examples_for
from openmav.protocol.commands import Intervene
from openmav.settings import interventions
from openmav.view import View


class InterventionsController:
    """Adds and removes interventions."""

    def __init__(self, context: Context, changes: ChangesController) -> None:
        self._context, self._changes = context, changes
        self._draft = ""  # what was typed and not accepted

    def open(self) -> None:
        """The list of active interventions; the form to add one where there are none."""
        from openmav.apps.tui.screens.forms import ListScreen

        context = self._context
        if not context.ready(Intervene, "interventions"):
            return
        now = context.view.interventions
        if not now:
            self.add()
            return
        keys = {"a": ("add", "add"), "d": ("drop", "remove"), "0": ("none", "remove all")}
        context.open(ListScreen("Interventions", [(one, one) for one in now], keys, PALETTES[context.view.theme]), self._chosen)

    def _chosen(self, answer: tuple[str, str] | None) -> None:
        what, name = answer or ("", "")
        if what == "add":
            self.add()
        elif what == "none":
            self._set(())
        elif what == "drop":
            self._set(tuple(one for one in self._context.view.interventions if one != name))

    def add(self, spec: str = "") -> None:
        """The form to add one; `spec` stands there at first."""
        from openmav.apps.tui.screens.interventions import InterventionScreen

        context, view = self._context, self._context.view
        if not context.ready(Intervene, "interventions"):
            return

        def check(values: Mapping[str, str]) -> str:
            self._draft = values["spec"]
            return error_of(lambda: checked(values["spec"], view))

        def done(values: dict[str, str] | None) -> None:
            if values is None:
                return
            added = str(interventions.parse(values["spec"]))
            self._draft = ""
            self._set((*(one for one in context.view.interventions if one != added), added))

        choices = examples_for(view)
        first = spec or self._draft or (choices[0][0] if choices else "")
        field = Field("spec", "", first, "ablate, amplify, steer or patch", choices=choices)
        context.open(InterventionScreen(field, check, view), done)

    def _set(self, specs: tuple[str, ...]) -> None:
        self._changes.keep(self._context.view.interventions)
        self._context.send(Intervene(specs))
        self._context.poll()


def checked(spec: str, view: View) -> None:
    """Raises UsageError for a spec that can't be read, or that names a layer or head that this model lacks."""
    intervention = interventions.parse(spec)
    if not 0 <= intervention.layer < view.layers:
        raise UsageError(f"this model has no layer {intervention.layer}: they go from 0 to {view.layers - 1}")
    if ".H" in intervention.place and intervention.index is not None and not 0 <= intervention.index < view.heads:
        raise UsageError(f"this model has no head {intervention.index}: they go from 0 to {view.heads - 1}")
