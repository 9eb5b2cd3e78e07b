"""The form of an intervention: its text, examples, and a field for each part of it; what is put into one stands in the other at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.widgets import Input, Static

from openmav.apps.tui.intervention_fields import CHOICES, LABELS, PARTS, fields_of
from openmav.apps.tui.screens.forms import FormScreen
from openmav.apps.tui.screens.modal import Field
from openmav.apps.tui.widgets.choice import Choice
from openmav.apps.tui.widgets.text_input import TextInput
from openmav.paint import PALETTES, ink, printable
from openmav.view import View

WIDE = ("vector", "text")  # fields that have the whole width, without a note beside them


class InterventionScreen(FormScreen):
    """`field` is that of the text."""

    def __init__(self, field: Field, check: Callable[[Mapping[str, str]], str], view: View) -> None:
        about = "Pick an example (↓), fill in the fields (tab), or type it."
        super().__init__("Add an intervention", [field], check, PALETTES[view.theme], about)
        self._view = view
        self._now = fields_of(view).read(field.value)

    def below(self) -> ComposeResult:
        style = ink(self._palette, "text")
        with Vertical(id="pickers"):
            for name, label in LABELS.items():
                with Horizontal(classes="field", id=f"row-{name}"):
                    yield Static(Text(label, style=style), classes="label")
                    value = getattr(self._now, name)
                    if name in CHOICES:
                        yield Choice(CHOICES[name], value, id=f"pick-{name}")
                    else:
                        yield TextInput(value, lines=False, id=f"pick-{name}").set_class(name in WIDE, "wide")
                    yield Static("", id=f"note-{name}", classes="note")

    def on_mount(self) -> None:
        self._show()

    @property
    def _is_picking(self) -> bool:
        """Whether the user is in one of the fields below the text."""
        return self.focused is not None and str(self.focused.id).startswith("pick-")

    @on(Input.Changed)
    @on(Choice.Changed)
    def sync(self, event: Input.Changed | Choice.Changed) -> None:
        """The text from the fields while the user is there, else the fields from the text."""
        source = event.control
        if not self.is_active or source is None:
            return
        text = self.query_one("#field-spec", Input)
        name = str(source.id).removeprefix("pick-")
        if self._is_picking and name in LABELS and isinstance(source, Input | Choice):
            self._now = self._now.with_(name, source.value)
            text.value = self._now.spec
        elif source is text and not self._is_picking:
            self._now = self._now.read(text.value)
        self._show()

    def _show(self) -> None:
        """The fields that there are now, what stands in them, and what is wrong with each."""
        notes = self._now.notes(self._view)
        for name in LABELS:
            try:
                row, note, widget = self.query_one(f"#row-{name}"), self.query_one(f"#note-{name}", Static), self.query_one(f"#pick-{name}")
            except NoMatches:  # not mounted yet
                return
            row.display = name in notes
            if name == "part" and isinstance(widget, Choice):
                widget.offer({part: PARTS[part] for part in self._now.parts})
            if isinstance(widget, Input | Choice) and widget.value != getattr(self._now, name):
                widget.value = getattr(self._now, name)
            text, wrong = notes.get(name, ("", False))
            note.update(Text(printable(text), style=ink(self._palette, "warning" if wrong else "secondary")))

    def show_wrong(self, wrong: str) -> None:
        """Under the fields only what is not said beside one of them."""
        beside = self._is_picking and any(bad for _, bad in self._now.notes(self._view).values())
        super().show_wrong("" if beside else wrong)
