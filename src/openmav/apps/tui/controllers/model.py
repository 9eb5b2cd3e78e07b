"""Another model in place of the one that is shown."""

from __future__ import annotations

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.screens.modal import Field
from openmav.errors import UsageError


class ModelController:
    """Asks for the name of a model and has the source load it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._name = ""  # that was asked for last

    def ask(self) -> None:
        context = self._context
        load = getattr(context.source, "load_model", None)
        if load is None:
            context.notify("the model of this source cannot be changed")
            return

        def take(values: dict[str, str]) -> None:
            self._name = values["model"].strip()
            try:
                context.notify(load(self._name))
            except UsageError as error:
                context.notify(str(error))
            context.poll()

        field = Field("model", "", self._name, "a name of the hub, a folder, or demo")
        about = "It begins with the prompt that is shown; the model that is here stays until it is loaded. Both need memory meanwhile."
        context.ask("Another model", [field], lambda values: "" if values["model"].strip() else "type a name or a folder", take, about)
