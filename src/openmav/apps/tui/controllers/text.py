"""The user's own text: inserted after a token, or as another prompt."""

from __future__ import annotations

from dataclasses import replace

from openmav.apps.tui.controllers.context import Context
from openmav.apps.tui.screens.modal import Field
from openmav.protocol.commands import EditPrompt, Resume, Type


class TextController:
    """Asks for text and sends it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def insert(self) -> None:
        """Text in place of the token under the cursor, or after the newest one."""
        context = self._context
        if not context.ready(Type, "inserting text"):
            return
        step = context.view.step if not context.view.following else None
        branch = context.view.branch
        index, where = (step.index, f"in place of token {step.index}") if step is not None else (None, "after the newest token")

        def take(values: dict[str, str]) -> None:
            context.send(Type(values["text"], index, branch))
            context.view = replace(context.view, candidate=None, following=True)
            context.poll()

        field = Field("text", "", "", "begin with a space for a new word", lines=True)
        context.ask(f"Insert text {where}", [field], lambda values: "" if values["text"] else "type at least one character", take)

    def edit_prompt(self) -> None:
        """Another prompt, on a branch of its own."""
        context = self._context
        if not context.ready(EditPrompt, "editing the prompt") or context.view.prompt is None:
            return

        def take(values: dict[str, str]) -> None:
            context.send(EditPrompt(values["text"]))
            context.view = replace(context.view, following=True, candidate=None)
            if not context.view.interactive:
                context.send(Resume())
            context.poll()

        field = Field("text", "", context.view.prompt.text, "the prompt", lines=True)
        about = f"The text so far is kept on its own branch ({context.key('branches')}: branches). ctrl+j inserts a line break."
        context.ask("Edit the prompt", [field], lambda values: "" if values["text"] else "the prompt is empty", take, about)
