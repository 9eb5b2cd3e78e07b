"""The form of sampling parameters, with what each stage would leave of the newest token's candidates. Imported when it is first opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from openmav.apps.tui.screens.forms import FormScreen
from openmav.apps.tui.screens.modal import Field
from openmav.paint import PALETTES, ink
from openmav.panels.base import Box
from openmav.panels.widgets.stages import stage_lines
from openmav.record.sampling_preview import SamplingPreview
from openmav.view import View

TICK = 1 / 12  # seconds between two looks at the preview
FRAME, REST, LEAST, MOST = 6, 11, 4, 14  # cells beside the preview; rows of the form without it; rows of it


class SamplingScreen(FormScreen):
    """`view` gives the newest view, `preview` the preview of what is typed, once it is there."""

    def __init__(
        self,
        fields: Sequence[Field],
        check: Callable[[Mapping[str, str]], str],
        view: Callable[[], View],
        preview: Callable[[], SamplingPreview | None],
    ) -> None:
        super().__init__("Sampling, from the next token on", fields, check, PALETTES[view().theme])
        self._view, self._preview = view, preview

    def below(self) -> ComposeResult:
        yield Static("", id="preview")

    def on_mount(self) -> None:
        self.set_interval(TICK, self.show_preview)
        self.call_after_refresh(self.show_preview)

    def on_resize(self) -> None:
        self.show_preview()

    def show_preview(self) -> None:
        """Draws the newest preview; the last one stays while a value is wrong."""
        if self.is_active:
            self.query_one("#preview", Static).update(self._text())

    def _text(self) -> Text:
        preview, view, palette = self._preview(), self._view(), self._palette
        width, rows = self.app.size
        width = max(1, min(84, max(24, width * 9 // 10)) - FRAME)
        height = min(MOST, rows * 9 // 10 - REST)
        if height < LEAST:
            return Text("")
        if preview is None:
            why = "no token yet: the bars of the first one will be here" if not view.steps else ""
            return Text(why, style=ink(palette, "secondary"))
        lines = stage_lines(preview, Box.of(view, width, height))
        where = f"what each stage leaves of the candidates at token {preview.index}"
        result = Text(where, style=ink(palette, "secondary"), no_wrap=True, overflow="ellipsis")
        for line in lines:
            result.append("\n")
            for segment in line:
                result.append(segment.text, segment.style)
        return result
