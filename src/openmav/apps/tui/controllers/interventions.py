"""Interventions on the model: the list of those that are active, and a form to add one."""

from __future__ import annotations

from openmav.apps.tui.controllers.changes import ChangesController
from openmav.apps.tui.controllers.context import Context, error_of
from openmav.apps.tui.screens.modal import Field
from openmav.paint import PALETTES
from openmav.protocol.commands import Intervene
from openmav.settings import interventions

EXAMPLES = "for example: ablate L5.H3 · ablate L7.mlp=mean · amplify L5.attn=0.5 · steer L8=vector.npy*4 · patch L6.resid@5=other prompt"


class InterventionsController:
    """Adds and removes interventions."""

    def __init__(self, context: Context, changes: ChangesController) -> None:
        self._context, self._changes = context, changes

    def open(self) -> None:
        """The list of active interventions; the form to add one where there are none."""
        from openmav.apps.tui.screens.forms import ListScreen

        context = self._context
        if not context.ready(Intervene, "interventions"):
            return
        now = context.view.interventions
        if not now:
            self._add()
            return
        keys = {"a": ("add", "add"), "d": ("drop", "remove"), "0": ("none", "remove all")}
        context.open(ListScreen("Interventions", [(one, one) for one in now], keys, PALETTES[context.view.theme]), self._chosen)

    def _chosen(self, answer: tuple[str, str] | None) -> None:
        what, name = answer or ("", "")
        if what == "add":
            self._add()
        elif what == "none":
            self._set(())
        elif what == "drop":
            self._set(tuple(one for one in self._context.view.interventions if one != name))

    def _add(self) -> None:
        view = self._context.view

        def take(values: dict[str, str]) -> None:
            added = str(interventions.parse(values["spec"]))
            self._set((*(one for one in self._context.view.interventions if one != added), added))

        field = Field("spec", "", f"ablate L{max(view.layer, 0)}.H{view.head}", "ablate, amplify, steer or patch")
        self._context.ask(
            "Add an intervention", [field], lambda values: error_of(lambda: interventions.parse(values["spec"])), take, EXAMPLES
        )

    def _set(self, specs: tuple[str, ...]) -> None:
        self._changes.keep(self._context.view.interventions)
        self._context.send(Intervene(specs))
        self._context.poll()
