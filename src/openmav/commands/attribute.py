"""`mav attribute`: which tokens of a prompt the next token depends on, once, as text or JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from typing import Any

from openmav.commands.asked import asked_model
from openmav.commands.stream import Output, ProgressLine, ReaderGoneError
from openmav.explained import InputAttribution
from openmav.logs import redirect
from openmav.settings import Settings
from openmav.signals import check

WIDTH = 100  # cells where there is no terminal
ROWS = 40


def attribute_command(values: dict[str, Any]) -> int:
    """Compute it and print it; the exit code.

    Raises MavError where the model can't be loaded or can't be asked, or for a target that is not one token.
    """
    settings = asked_model(values)
    out = Output(sys.stdout)
    redirect(descriptors=True)
    found, said = _explain(settings, values)
    try:
        out.write(as_json(found) if values["json"] else _as_text(found, said, out.terminal))
    except ReaderGoneError:
        return 0
    return 0


def _explain(settings: Settings, values: dict[str, Any]) -> tuple[InputAttribution, str]:
    """The answer, and the model in words."""
    from openmav.opening import open_session
    from openmav.prompts import one_token

    progress = ProgressLine()

    def tell(what: str, share: float | None = None) -> None:
        check()
        progress(what, share)

    session = open_session(settings, tell)
    try:
        session.progress = tell
        target, minus = (None if text is None else one_token(session.backend, text) for text in (values["target"], values["minus"]))
        session.step()
        found = session.explain(values["method"], 0, target, minus)
        effort = f"{found.passes} {'texts' if found.passes > 1 else 'text'} through the model in {found.seconds:.1f} s"
        return found, f"{session.info.name} · {session.info.dtype} · {effort}"
    finally:
        progress.clear()
        session.close()


def as_json(found: InputAttribution) -> str:
    """One object; NaN is null."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    tokens = [
        {"position": at, "token_id": token_id, "token": token, "score": number(float(score))}
        for at, (token_id, token, score) in enumerate(zip(found.token_ids, found.tokens, found.scores))
    ]
    plain = {name: getattr(found, name) for name in ("method", "unit", "target_id", "target", "minus_id", "minus", "reference", "passes")}
    sums = {name: number(float(getattr(found, name))) for name in ("output", "sum", "total", "error", "drift", "seconds")}
    return json.dumps({**plain, **sums, "tokens": tokens}, ensure_ascii=False) + "\n"


def _as_text(found: InputAttribution, said: str, terminal: bool) -> str:
    """The panel's picture, in colours where there are any."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    from openmav.paint import PALETTES, one_line
    from openmav.panels import input_attribution as panel
    from openmav.panels._view import View

    coloured = terminal and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((WIDTH, ROWS)).columns if terminal else WIDTH
    view = View(attribution=found, palette=PALETTES["dark" if coloured else "mono"])
    console = Console(
        width=width, color_system="auto" if coloured else None, force_terminal=terminal, legacy_windows=False, highlight=False
    )
    with console.capture() as capture:
        console.print(panel.heading(view, width), markup=False)
        for line in panel.render(view, width, ROWS):
            console.print(Segments([*line, Segment.line()]), end="")
        console.print(one_line(" · ".join(panel.said(found))), markup=False)
        console.print(said, markup=False)
    return "\n".join(line.rstrip() for line in capture.get().split("\n"))
