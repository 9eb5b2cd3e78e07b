"""The branches of the text: switch to one, rename it, compare with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.screens.modal import Field
from openmav.paint import PALETTES
from openmav.panels.widgets.branch_tree import branch_rows, label
from openmav.protocol.commands import Rename, Switch

LABEL_WIDTH = 160  # cells of a row of the list


class BranchesController:
    """Opens the list of branches, and does what was chosen there."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def open(self) -> None:
        from openmav.apps.tui.screens.forms import ListScreen

        context = self._context
        if not context.ready(Switch, "branches"):
            return
        now = context.view.branch
        rows = [
            (row.name, f"{'●' if row.name == now else ' '} {label(row, LABEL_WIDTH)}")
            for row in branch_rows(context.view.all_branches(), LABEL_WIDTH)
        ]
        keys = {"n": ("name", "rename"), "c": ("compare", "compare")}
        context.open(ListScreen("Branches", rows, keys, PALETTES[context.view.theme], now, "switch"), self._chosen)

    def _chosen(self, answer: tuple[str, str] | None) -> None:
        if answer is None:
            return
        context = self._context
        what, name = answer
        if what == "compare":
            context.show(replace(context.view, other=name if name != context.view.branch else None))
        elif what == "name":
            field = Field("name", "", name)
            context.ask(f"Rename '{name}'", [field], self._wrong_name, lambda values: self._rename(name, values["name"].strip()))
        elif name != context.view.branch:
            self._switch(name)

    def _wrong_name(self, values: Mapping[str, str]) -> str:
        name = values["name"].strip()
        if name in self._context.view.branches:
            return f"there is already a branch '{name}'"
        return "" if name else "a branch needs a name"

    def _rename(self, old: str, new: str) -> None:
        context = self._context
        context.send(Rename(old, new))
        context.view = replace(context.view, other=new if context.view.other == old else context.view.other)
        context.poll()

    def _switch(self, name: str) -> None:
        context = self._context
        left = context.view.branch
        context.send(Switch(name))
        context.view = replace(context.view, candidate=None, following=True, other=left)
        context.poll()
